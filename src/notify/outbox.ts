import type { ChannelRules, NotifyEvent } from '../config/notify.ts';
import { type Clock, untilWall } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type Channel, DeliveryError } from './channels/channel.ts';
import { factId, isRequest, type Notice } from './notice.ts';
import { accepts, nextHours } from './rules.ts';

/** A notice on its way. */
export interface Pending {
  readonly notice: Notice;
  /** Not before: the hours of the channel, or what is still to be added up. Ms since the epoch. */
  readonly fromMs: number;
  /** Deliveries that were begun; after the first it may have arrived. */
  attempts: number;
}

/** What survives a restart. */
export interface KeptOutbox {
  readonly pending: readonly Pending[];
  /** Requests that were said and are not settled, with what replaces them. */
  readonly shown: readonly (readonly [id: string, replaces: string | undefined])[];
}

export interface OutboxDeps {
  readonly rules: ChannelRules;
  readonly channel: Channel;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called when what must survive a restart is different. */
  readonly onChange: () => void;
}

const FIRST_PAUSE_MS = 1_000;
/** One that was away for hours is given what waits within a minute of its return. */
const MAX_PAUSE_MS = 60_000;
/** What the other end refuses this often it will never take. */
const MAX_REFUSALS = 5;
const REFUSED_PAUSE_MS = 10_000;
/** That somebody is done is no news a day later. */
const KEPT_MS = 86_400_000;

/** What nobody must act on is said one by one up to here, and once more for each refill; beyond, it is added up. */
const BURST = 20;
const REFILL_MS = 30_000;
/** For so long a summary adds up before it is sent. */
const SUMMARY_MS = 30_000;

/**
 * What one channel has still to say. Each goes out at least once, in its own time: what a channel does not take is tried again, and
 * holds up no other channel. Of one fact only the newest word is kept.
 */
export class Outbox {
  readonly #deps: OutboxDeps;
  readonly #ending = new AbortController();
  readonly #pending = new Map<string, Pending>();
  readonly #shown = new Map<string, string | undefined>();
  #budget = BURST;
  #refilledMs: number;
  #wake: () => void = () => {};
  #isWoken = false;
  #isAbsent = false;
  #failing: string | undefined;
  #work: Promise<void> | undefined;

  constructor(deps: OutboxDeps) {
    this.#deps = deps;
    this.#refilledMs = deps.clock.monotonic();
  }

  /** Takes up what an earlier process left, before `start`. */
  restore({ pending, shown }: KeptOutbox): void {
    // The process may have ended between a delivery and what it wrote of it.
    for (const one of pending) this.#pending.set(one.notice.id, { ...one, attempts: Math.max(1, one.attempts) });
    for (const [id, replaces] of shown) this.#shown.set(id, replaces);
  }

  get kept(): KeptOutbox {
    return { pending: [...this.#pending.values()], shown: [...this.#shown] };
  }

  start(): void {
    this.#work = this.#run();
  }

  /** Cuts what is under way. What has not arrived stays in `kept`. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.#work;
  }

  /** Takes a notice where the rules of the channel fit it. Never waits. */
  offer(notice: Notice): void {
    const { rules, clock } = this.#deps;
    const { event, id } = notice;
    if (this.#isAbsent) return;
    if (event === 'settled') this.#settle(notice);
    else if (event === 'summary' || event === 'test') this.#put(notice, clock.now());
    else if (accepts(rules, event, notice)) {
      const fromMs = nextHours(rules.hours, clock.now());
      // What waits for a person is said when the hours begin, if it still waits then.
      if (isRequest(notice)) this.#put(notice, fromMs);
      else if (fromMs > clock.now()) return;
      else if (this.#pending.has(id) || this.#takeBudget()) this.#put(notice, fromMs);
      else this.#addUp(notice, event);
    }
  }

  #put(notice: Notice, fromMs: number): void {
    // At the end, since another try of what failed waits behind the others.
    const attempts = this.#pending.get(notice.id)?.attempts ?? 0;
    this.#pending.delete(notice.id);
    this.#pending.set(notice.id, { notice, fromMs, attempts });
    this.#changed();
  }

  /** What was never said need not be taken back. */
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
    this.#isWoken = true;
    this.#wake();
    this.#deps.onChange();
  }

  async #run(): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = this.#ending;
    let pauseMs = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      this.#isWoken = false;
      const next = this.#next();
      if (next === undefined) await this.#rest();
      else if (await this.#deliver(next)) pauseMs = FIRST_PAUSE_MS;
      else if (!signal.aborted) {
        await clock.sleep(pauseMs, signal);
        pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS);
      }
    }
  }

  /** What somebody must act on goes first. */
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
    this.#log('warn', 'notifications of yesterday were dropped: their channel took none', { count: old.length });
    this.#deps.onChange();
  }

  /** Until there is something to do. */
  async #rest(): Promise<void> {
    const { clock } = this.#deps;
    const rest = new AbortController();
    this.#wake = () => rest.abort();
    this.#ending.signal.addEventListener('abort', this.#wake, { once: true });
    if (this.#isWoken) rest.abort();
    const fromMs = Math.min(...[...this.#pending.values()].map((one) => one.fromMs), Number.POSITIVE_INFINITY);
    await clock.sleep(untilWall(clock, fromMs), rest.signal);
    this.#ending.signal.removeEventListener('abort', this.#wake);
  }

  /** False where the channel is to be left alone for a while. */
  async #deliver(pending: Pending): Promise<boolean> {
    const { channel } = this.#deps;
    const { notice } = pending;
    pending.attempts += 1;
    try {
      const { replaces } = await channel.deliver(notice, this.#shown.get(notice.id), this.#ending.signal);
      if (isRequest(notice)) this.#shown.set(notice.id, replaces);
      else this.#shown.delete(notice.id);
      this.#forget(pending);
      if (this.#failing !== undefined) this.#log('info', 'notifications arrive again');
      this.#failing = undefined;
      return true;
    } catch (error) {
      if (this.#ending.signal.aborted) return false;
      return this.#failed(pending, error);
    }
  }

  #failed(pending: Pending, error: unknown): boolean {
    const reason = messageOf(error);
    const kind = error instanceof DeliveryError ? error.kind : 'failed';
    if (kind === 'absent') {
      this.#isAbsent = true;
      this.#pending.clear();
      this.#log('info', 'a channel for notifications is off', { reason });
      this.#deps.onChange();
      return true;
    }
    const isLast = kind === 'refused' && pending.attempts >= MAX_REFUSALS;
    if (isLast) {
      this.#log('error', 'a notification was dropped: its channel refuses it', { event: pending.notice.event, reason });
      this.#forget(pending);
    } else {
      if (this.#failing !== reason) this.#log('warn', 'a notification did not arrive; it is tried again', { reason });
      this.#failing = reason;
      this.#putBack(pending, kind === 'refused' ? REFUSED_PAUSE_MS : 0);
    }
    // Where only this one is refused the others get through.
    return kind === 'refused';
  }

  /** Behind the others. */
  #putBack(pending: Pending, pauseMs: number): void {
    const { id } = pending.notice;
    if (this.#pending.get(id) !== pending) return;
    this.#pending.delete(id);
    this.#pending.set(id, { ...pending, fromMs: this.#deps.clock.now() + pauseMs });
  }

  /** Unless something newer is to be said of it. */
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
