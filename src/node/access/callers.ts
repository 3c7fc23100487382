import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import type { LocalApi, Whois } from '../../tailscale/types.ts';
import { within } from '../../base/within.ts';
import { type AdmissionRules, admit, refuseSelf, refuseStranger, type Verdict } from './admission.ts';
import { type LoopbackPeerDeps, strangerAtLoopback } from './loopback-peer.ts';
import type { Tailnet, TailnetView } from '../tailnet-view.ts';
import { reasonOf } from '../../base/errors.ts';

export interface CallersDeps {
  readonly api: Pick<LocalApi, 'whois'>;
  readonly view: Pick<TailnetView, 'current' | 'peer' | 'suspect'>;
  readonly rules: AdmissionRules;
  readonly loopbackPeer: LoopbackPeerDeps;
  readonly clock: Clock;
}

/** tailscaled answers within a millisecond; callers must not wait for one that hangs. */
export const WHOIS_LIMIT_MS = 3000;

/** For consecutive requests on one connection. An answer is never used for another connection. */
export const WHOIS_LIFETIME_MS = 10_000;

/**
 * With userspace networking tailscaled records a connection just after opening it, and the kernel's table can change while
 * it is read.
 */
const MORE_ATTEMPTS = 3;
const ATTEMPT_PAUSE_MS = 50;

/** Identifies the other end of a connection and decides what it may do. */
export class Callers {
  readonly #deps: CallersDeps;
  readonly #answers = new WeakMap<Socket, { readonly whois: Whois; readonly atMs: number }>();
  /** Shared by concurrent requests on one connection. */
  readonly #asking = new WeakMap<Socket, Promise<Whois | undefined>>();

  constructor(deps: CallersDeps) {
    this.#deps = deps;
  }

  /** Never rejects. `again`: ignores the cached whois answer. */
  async admit(socket: Socket, how?: 'again'): Promise<Verdict> {
    const tailnet = this.#deps.view.current;
    if (tailnet === undefined) return unanswered('tailscaled is not running or logged out');
    const { self } = tailnet;
    const address = addressOf(socket);
    if (address === undefined) return unanswered('the connection is gone');
    if (self.addresses.includes(address)) return refuseSelf();
    try {
      if (how === 'again') this.#answers.delete(socket);
      const whois = this.#recent(socket) ?? (await this.#askOnce(socket, address, tailnet));
      const peer = whois === undefined ? undefined : await this.#deps.view.peer(whois.node.id);
      return admit({ whois, self, peer, rules: this.#deps.rules });
    } catch (error) {
      if (error instanceof StrangerError) return refuseStranger(error.message);
      this.#deps.view.suspect();
      return unanswered(reasonOf(error));
    }
  }

  #recent(socket: Socket): Whois | undefined {
    const known = this.#answers.get(socket);
    return known !== undefined && this.#deps.clock.monotonic() - known.atMs < WHOIS_LIFETIME_MS
      ? known.whois
      : undefined;
  }

  #askOnce(socket: Socket, address: string, tailnet: Tailnet): Promise<Whois | undefined> {
    const asking =
      this.#asking.get(socket) ?? this.#ask(socket, address, tailnet).finally(() => this.#asking.delete(socket));
    this.#asking.set(socket, asking);
    return asking;
  }

  async #ask(socket: Socket, address: string, { tun }: Tailnet): Promise<Whois | undefined> {
    const { clock, loopbackPeer } = this.#deps;
    const { localPort, remotePort } = socket;
    if (localPort === undefined || remotePort === undefined) throw new Error('the connection is gone');
    const place = address.includes(':') ? `[${address}]:${remotePort}` : `${address}:${remotePort}`;
    for (let left = tun ? 0 : MORE_ATTEMPTS; ; left -= 1) {
      const stranger = tun ? undefined : await strangerAtLoopback({ localPort, remotePort }, loopbackPeer);
      const whois = stranger === undefined ? await this.#whois(place) : undefined;
      if (whois !== undefined) {
        this.#answers.set(socket, { whois, atMs: clock.monotonic() });
        return whois;
      }
      if (left <= 0) {
        if (stranger !== undefined) throw new StrangerError(stranger);
        return undefined;
      }
      await clock.sleep(ATTEMPT_PAUSE_MS);
    }
  }

  #whois(place: string): Promise<Whois | undefined> {
    const { api, clock } = this.#deps;
    const late = (): Error => new Error(`tailscaled did not identify the caller within ${WHOIS_LIMIT_MS} ms`);
    return within({ clock, ms: WHOIS_LIMIT_MS, late }, (signal) => api.whois(place, signal));
  }
}

/** A loopback connection that tailscaled did not open. */
class StrangerError extends Error {}

/** Without the IPv4 prefix and the zone. Undefined once the connection is gone. */
function addressOf({ remoteAddress }: Socket): string | undefined {
  return remoteAddress?.replace(/^::ffff:/i, '').replace(/%.*$/, '');
}

function unanswered(reason: string): Verdict {
  return { unanswered: reason, caller: 'unknown' };
}
