import type { ChannelRules, NotifyEvent } from '../config/notify.ts';
import { type Clock, untilWall, WakeableSleep } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type Channel, DeliveryError } from './channels/channel.ts';
import { factId, isRequest, type Notice } from './notice.ts';
import { accepts, nextHours } from './rules.ts';

/** A notice that waits for its delivery. */
export interface Pending {
  readonly notice: Notice;
  /** Earliest delivery, ms since the epoch: when the channel's hours begin, or when a summary stops counting. */
  readonly fromMs: number;
  /** Deliveries begun; after the first the notice may have arrived. */
  attempts: number;
}

/** The part of an outbox that survives a restart. */
export interface KeptOutbox {
  readonly pending: readonly Pending[];
  /** Delivered requests that are not settled, with what replaces them; see `Receipt`. */
  readonly shown: readonly (readonly [id: string, replaces: string | undefined])[];
}

export interface OutboxDeps {
  readonly rules: ChannelRules;
  readonly channel: Channel;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called when `kept` changed. */
  readonly onChange: () => void;
}

const FIRST_PAUSE_MS = 1_000;
/** A channel that was away for hours gets its notices within a minute of its return. */
const MAX_PAUSE_MS = 60_000;
/** A notice refused this often is dropped. */
const MAX_REFUSALS = 5;
const REFUSED_PAUSE_MS = 10_000;
/** A day later, the end of a turn is no news. */
const KEPT_MS = 86_400_000;

/** Events that need no action are delivered one by one up to `BURST`, one more per `REFILL_MS`; a summary counts the rest. */
const BURST = 20;
const REFILL_MS = 30_000;
/** How long a summary counts events before it is sent. */
const SUMMARY_MS = 30_000;

/** One channel's queue. Each notice is delivered at least once; a failed one is tried again. Of one fact only the newest is kept. */
export class Outbox {
  readonly #deps: OutboxDeps;
  readonly #ending = new AbortController();
  readonly #pending = new Map<string, Pending>();
  readonly #shown = new Map<string, string | undefined>();
  #budget = BURST;
  #refilledMs: number;
  readonly #pause: WakeableSleep;
  #isAbsent = false;
  #failing: string | undefined;
  #work: Promise<void> | undefined;

  constructor(deps: OutboxDeps) {
    this.#deps = deps;
    this.#pause = new WakeableSleep(deps.clock);
    this.#refilledMs = deps.clock.monotonic();
  }

  /** Takes over what an earlier process left. Call it before `start`. */
  restore({ pending, shown }: KeptOutbox): void {
    // The earlier process may have ended after a delivery, before it stored that, so each counts as attempted.
    for (const one of pending) this.#pending.set(one.notice.id, { ...one, attempts: Math.max(1, one.attempts) });
    for (const [id, replaces] of shown) this.#shown.set(id, replaces);
  }

  get kept(): KeptOutbox {
    return { pending: [...this.#pending.values()], shown: [...this.#shown] };
  }

  start(): void {
    this.#work = this.#run();
  }

  /** Cuts a delivery. What has not arrived stays in `kept`. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.#work;
  }

  /** Queues a notice that the channel's rules accept. Never waits. */
  offer(notice: Notice): void {
    const { rules, clock } = this.#deps;
    const { event, id } = notice;
    if (this.#isAbsent) return;
    if (event === 'settled') this.#settle(notice);
    else if (event === 'summary' || event === 'test') this.#put(notice, clock.now());
    else if (accepts(rules, event, notice)) {
      const fromMs = nextHours(rules.hours, clock.now());
      // Outside the channel's hours a request waits for them; other events are dropped.
      if (isRequest(notice)) this.#put(notice, fromMs);
      else if (fromMs > clock.now()) return;
      else if (this.#pending.has(id) || this.#takeBudget()) this.#put(notice, fromMs);
      else this.#addUp(notice, event);
    }
  }

  #put(notice: Notice, fromMs: number): void {
    // At the end of the queue: what failed before waits behind the others.
    const attempts = this.#pending.get(notice.id)?.attempts ?? 0;
    this.#pending.delete(notice.id);
    this.#pending.set(notice.id, { notice, fromMs, attempts });
    this.#changed();
  }

  /** Drops a request that was never delivered; otherwise queues the notice that it is settled. */
  #settle(notice: Notice): void {
    const pending = this.#pending.get(notice.id);
    if (this.#shown.has(notice.id) || (pending?.attempts ?? 0) > 0) this.#put(notice, this.#deps.clock.now());
    else if (this.#pending.delete(notice.id)) this.#changed();
  }

  #takeBudget(): boolean {
    const nowMs = this.#deps.clock.monotonic();
    const refills = Math.floor((nowMs - this.#refilledMs) / REFILL_MS);
    this.#budget = Math.min(BURST, this.#budget + refills);
    this.#refilledMs += refills * REFILL_MS;
    const waiting = [...this.#pending.values()].filter(({ notice }) => !isRequest(notice)).length;
    if (this.#budget === 0 || waiting >= BURST) return false;
    this.#budget -= 1;
    return true;
  }

  #addUp(notice: Notice, event: NotifyEvent): void {
    const { rules, clock } = this.#deps;
    const before = [...this.#pending.values()].find((one) => one.notice.event === 'summary');
    const counts = { ...before?.notice.counts };
    counts[event] = (counts[event] ?? 0) + 1;
    const { host, atMs } = notice;
    const id = before?.notice.id ?? factId('summary', rules.name, notice.id);
    this.#put({ id, event: 'summary', atMs, host, counts }, before?.fromMs ?? clock.now() + SUMMARY_MS);
  }

  #changed(): void {
    this.#pause.wake();
    this.#deps.onChange();
  }

  async #run(): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = this.#ending;
    let pauseMs = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      const next = this.#next();
      if (next === undefined) await this.#pause.sleep(untilWall(clock, this.#nextMs()), signal);
      else if (await this.#deliver(next)) pauseMs = FIRST_PAUSE_MS;
      else if (!signal.aborted) {
        await clock.sleep(pauseMs, signal);
        pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS);
      }
    }
  }

  /** Requests go first. */
  #next(): Pending | undefined {
    const nowMs = this.#deps.clock.now();
    this.#dropOld(nowMs);
    const due = [...this.#pending.values()].filter(({ fromMs }) => fromMs <= nowMs);
    return due.find(({ notice }) => isRequest(notice)) ?? due[0];
  }

  #dropOld(nowMs: number): void {
    const old = [...this.#pending.values()].filter(({ notice }) => !isRequest(notice) && nowMs - notice.atMs > KEPT_MS);
    if (old.length === 0) return;
    for (const { notice } of old) this.#pending.delete(notice.id);
    this.#log('warn', 'dropped notifications that could not be delivered for a day', { count: old.length });
    this.#deps.onChange();
  }

  #nextMs(): number {
    return Math.min(...[...this.#pending.values()].map(({ fromMs }) => fromMs), Number.POSITIVE_INFINITY);
  }

  /** False if the channel needs a pause. */
  async #deliver(pending: Pending): Promise<boolean> {
    const { notice } = pending;
    const { signal } = this.#ending;
    pending.attempts += 1;
    try {
      const { replaces } = await this.#deps.channel.deliver(notice, this.#shown.get(notice.id), signal);
      this.#arrived(pending, replaces);
      return true;
    } catch (error) {
      return signal.aborted ? false : this.#failed(pending, error);
    }
  }

  #arrived(pending: Pending, replaces: string | undefined): void {
    const { notice } = pending;
    if (isRequest(notice)) this.#shown.set(notice.id, replaces);
    else this.#shown.delete(notice.id);
    this.#forget(pending);
    if (this.#failing !== undefined) this.#log('info', 'notifications arrive again');
    this.#failing = undefined;
  }

  /** False if the channel needs a pause. A refusal concerns this notice only, so the next one needs none. */
  #failed(pending: Pending, error: unknown): boolean {
    const reason = messageOf(error);
    const kind = error instanceof DeliveryError ? error.kind : 'failed';
    if (kind === 'absent') this.#switchOff(reason);
    else if (kind === 'failed') this.#tryAgain(pending, reason, 0);
    else if (pending.attempts < MAX_REFUSALS) this.#tryAgain(pending, reason, REFUSED_PAUSE_MS);
    else this.#drop(pending, reason);
    return kind !== 'failed';
  }

  #switchOff(reason: string): void {
    this.#isAbsent = true;
    this.#pending.clear();
    this.#log('info', 'a notification channel is off', { reason });
    this.#deps.onChange();
  }

  #drop(pending: Pending, reason: string): void {
    const { event } = pending.notice;
    this.#log('error', 'a notification was dropped: its channel refuses it', { event, reason });
    this.#forget(pending);
  }

  #tryAgain(pending: Pending, reason: string, pauseMs: number): void {
    if (this.#failing !== reason) this.#log('warn', 'cannot deliver a notification; trying again', { reason });
    this.#failing = reason;
    this.#putBack(pending, pauseMs);
  }

  /** Moves it to the end of the queue, unless a newer notice of the same fact took its place. */
  #putBack(pending: Pending, pauseMs: number): void {
    const { id } = pending.notice;
    if (this.#pending.get(id) !== pending) return;
    this.#pending.delete(id);
    this.#pending.set(id, { ...pending, fromMs: this.#deps.clock.now() + pauseMs });
  }

  /** Removes it, unless a newer notice of the same fact took its place. */
  #forget(pending: Pending): void {
    if (this.#pending.get(pending.notice.id) === pending) this.#pending.delete(pending.notice.id);
    this.#deps.onChange();
  }

  #log(
    level: 'info' | 'warn' | 'error',
    message: string,
    fields: Readonly<Record<string, string | number>> = {},
  ): void {
    this.#deps.logger.log(level, message, { channel: this.#deps.rules.name, to: this.#deps.channel.label, ...fields });
  }
}
