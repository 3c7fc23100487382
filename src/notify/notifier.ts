import type { ChannelRules, NotifySettings } from '../config/notify.ts';
import { type Clock, untilWall, WakeableSleep } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Followed } from '../model/followed.ts';
import type { Watcher } from '../watch/contract.ts';
import type { Channel } from './channels/channel.ts';
import { Facts, type Memory } from './facts.ts';
import type { NoticeStore } from './notice-store.ts';
import { Outbox } from './outbox.ts';

export interface NotifierDeps {
  readonly settings: Omit<NotifySettings, 'channels'>;
  readonly channels: readonly { readonly rules: ChannelRules; readonly channel: Channel }[];
  readonly watcher: Watcher;
  /** This machine's name. */
  readonly host: string;
  /** The page's current address; undefined without one. */
  readonly linkBase: () => string | undefined;
  /** The turns that calls on this machine follow, by session. */
  readonly followed: () => Promise<ReadonlyMap<string, Followed>>;
  readonly store: NoticeStore;
  /** Makes this process the one that notifies, until the returned function is called; undefined if another process is. */
  readonly hold: () => Promise<(() => Promise<void>) | undefined>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** How soon a process takes over from one that ended. */
const HOLD_PAUSE_MS = 5_000;

/** Notifies a person of what happens on the servers that a watcher follows. */
export class Notifier {
  readonly #deps: NotifierDeps;
  readonly #ending = new AbortController();
  readonly #outboxes: ReadonlyMap<string, Outbox>;
  #memory: Memory = new Map();
  readonly #pause: WakeableSleep;
  #work: Promise<void> | undefined;
  #writing: Promise<void> | undefined;
  #isUnwritten = false;
  #release: (() => Promise<void>) | undefined;

  constructor(deps: NotifierDeps) {
    this.#deps = deps;
    const { channels, clock, logger } = deps;
    this.#pause = new WakeableSleep(clock);
    this.#outboxes = new Map(
      channels.map(({ rules, channel }) => [
        rules.name,
        new Outbox({ rules, channel, clock, logger, onChange: () => this.#write() }),
      ]),
    );
  }

  /** Returns immediately. */
  start(): void {
    this.#work ??= this.#run();
  }

  /** Cuts deliveries. Notices that have not arrived are kept for the next process. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.#work;
    await Promise.all([...this.#outboxes.values()].map((outbox) => outbox.close()));
    await this.#writing;
    await this.#release?.();
  }

  async #hold(): Promise<(() => Promise<void>) | undefined> {
    const { hold, clock, logger } = this.#deps;
    const { signal } = this.#ending;
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      try {
        const release = await hold();
        if (release !== undefined) return release;
      } catch (error) {
        logger.log('warn', 'cannot check whether another process notifies too', { reason: messageOf(error) });
        return undefined;
      }
      if (isFirst)
        logger.log('info', 'another process of this user sends the notifications; this one takes over when that ends');
      await clock.sleep(HOLD_PAUSE_MS, signal);
    }
    return undefined;
  }

  async #run(): Promise<void> {
    const { store, watcher, settings, host, clock, logger } = this.#deps;
    const { signal } = this.#ending;
    this.#release = await this.#hold();
    if (signal.aborted) return;
    const kept = await store.read();
    this.#memory = kept.memory;
    for (const [name, outbox] of this.#outboxes) {
      const left = kept.outboxes.get(name);
      if (left !== undefined) outbox.restore(left);
      outbox.start();
    }
    logger.log('info', 'notifying', { channels: [...this.#outboxes.keys()].join(', ') });
    const facts = new Facts(settings, host, this.#memory);
    const stop = watcher.onChange(() => this.#pause.wake());
    while (!signal.aborted) {
      await this.#look(facts);
      await this.#pause.sleep(untilWall(clock, facts.nextMs(watcher.servers())), signal);
    }
    stop();
  }

  async #look(facts: Facts): Promise<void> {
    const { watcher, followed, clock, linkBase, logger } = this.#deps;
    const calls = await followed().catch((error: unknown) => {
      logger.log('warn', 'cannot read which turns calls follow', { reason: messageOf(error) });
      return new Map<string, Followed>();
    });
    const notices = facts.look({
      servers: watcher.servers(),
      followed: calls,
      nowMs: clock.now(),
      linkBase: linkBase(),
    });
    for (const notice of notices) for (const outbox of this.#outboxes.values()) outbox.offer(notice);
    // Running turns are stored too, so that the next process notices a turn that ended in between.
    this.#write();
  }

  /** One write at a time; each takes the state at its beginning. */
  #write(): void {
    this.#isUnwritten = true;
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
  }

  async #writeAll(): Promise<void> {
    while (this.#isUnwritten) {
      this.#isUnwritten = false;
      const outboxes = new Map([...this.#outboxes].map(([name, outbox]) => [name, outbox.kept]));
      await this.#deps.store.write({ memory: this.#memory, outboxes });
    }
  }
}
