import type { Snapshot } from '../../model/instance.ts';
import type { SendNotification } from '../core.ts';
import { parseUri } from './resource-uri.ts';

type Shown = Pick<Snapshot, 'instances'>;

/** More than a client has use for. */
export const MAX_SUBSCRIPTIONS = 1_000;

/** Notifies a client when the list that it was shown is out of date, and when an instance that it subscribed to changes. */
export class FleetNews {
  readonly #sendNotification: SendNotification;
  readonly #subscribed = new Set<string>();
  /** Fingerprints of what the client knows; undefined until it lists or subscribes. */
  #known: ReadonlyMap<string, string> | undefined;
  #hasListed = false;
  #unread = 0;
  /** The newest snapshot that came while the client did not read. */
  #due: (() => Snapshot) | undefined;

  constructor(sendNotification: SendNotification) {
    this.#sendNotification = sendNotification;
  }

  /** From now on the client has a list that can be out of date. */
  listed(shown: Shown): void {
    this.#hasListed = true;
    this.#known ??= fingerprints(shown);
  }

  /** False if there are too many. */
  subscribe(uri: string, now: Shown): boolean {
    if (this.#subscribed.size >= MAX_SUBSCRIPTIONS) return false;
    this.#subscribed.add(uri);
    this.#known ??= fingerprints(now);
    return true;
  }

  unsubscribe(uri: string): void {
    this.#subscribed.delete(uri);
  }

  /**
   * Calls `snapshot` only if the client is to be notified. A client that does not read is notified once it does, of all that is
   * different by then.
   */
  changed(snapshot: () => Snapshot): void {
    const before = this.#known;
    if (before === undefined) return;
    this.#due = this.#unread > 0 ? snapshot : undefined;
    if (this.#due !== undefined) return;
    const now = fingerprints(snapshot());
    this.#known = now;
    const names = new Set([...before.keys(), ...now.keys()]);
    const isOtherList = names.size !== before.size || names.size !== now.size;
    if (this.#hasListed && isOtherList) this.#notify('notifications/resources/list_changed', {});
    for (const uri of this.#subscribed) {
      const name = parseUri(uri)?.instance ?? '';
      if (before.get(name) !== now.get(name)) this.#notify('notifications/resources/updated', { uri });
    }
  }

  #notify(...notification: Parameters<SendNotification>): void {
    this.#unread += 1;
    void this.#sendNotification(...notification).then(() => {
      this.#unread -= 1;
      if (this.#unread === 0 && this.#due !== undefined) this.changed(this.#due);
    });
  }
}

/** What a client sees of each instance, by name. */
function fingerprints({ instances }: Shown): Map<string, string> {
  return new Map(
    instances.map(({ name, state, reason, overview }) => [
      name,
      JSON.stringify([state, reason, overview?.session, overview?.waiting]),
    ]),
  );
}
