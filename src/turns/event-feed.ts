import { setImmediate as nextTurn } from 'node:timers/promises';

import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { EventStream, ServerEvent } from '../opencode/events.ts';
import { RequestError } from '../http/exchange.ts';

export type FeedItem =
  | { readonly kind: 'event'; readonly event: ServerEvent }
  /** Events are missing here: the stream broke and is open again, or more came than is kept. */
  | { readonly kind: 'gap' }
  /** The stream broke and could not be opened again within the limit. */
  | { readonly kind: 'lost'; readonly reason: string };

/** A relay tunnel or a suspended laptop usually returns within this; later the turn counts as unreachable. */
const RECONNECT_LIMIT_MS = 20_000;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 2_000;

export interface FeedLimits {
  readonly events: number;
  readonly chars: number;
}

/** Kept while the follower reads the store: some 10 MB, more than opencode sends in a second. */
const LIMITS: FeedLimits = { events: 8_000, chars: 2 * 1024 * 1024 };

/**
 * One event stream, reopened when it breaks. It is read even while the follower is busy: unread events fill opencode's memory
 * (version 1) or end the stream (version 2). Past the limits a gap replaces all waiting events; the follower then reads the store.
 */
export class EventFeed {
  /** Number of breaks. While it is unchanged and there is a stream, the process at the other end is the same. */
  breaks = 0;
  /** Sessions interrupted while the stream was open. */
  readonly interrupted = new Set<string>();
  /** False if a proxy passes no event stream; the turn is then followed by store and status alone. */
  readonly hasStream: boolean;
  readonly #open: () => Promise<EventStream>;
  readonly #clock: Clock;
  readonly #limits: FeedLimits;
  #items: FeedItem[] = [];
  /** Characters of the waiting events. */
  #chars = 0;
  readonly #closed = new AbortController();
  #stream: EventStream | undefined;
  #wake: (() => void) | undefined;

  /** Resolves when the stream is open, or a proxy withholds it; rejects with `RequestError` if the instance cannot be reached. */
  static async open(open: () => Promise<EventStream>, clock: Clock, limits: FeedLimits = LIMITS): Promise<EventFeed> {
    return new EventFeed(open, await open().catch(unlessWithheld), clock, limits);
  }

  private constructor(
    open: () => Promise<EventStream>,
    stream: EventStream | undefined,
    clock: Clock,
    limits: FeedLimits,
  ) {
    this.#open = open;
    this.#stream = stream;
    this.hasStream = stream !== undefined;
    this.#clock = clock;
    this.#limits = limits;
    void this.#pump();
  }

  /** The next item, or undefined after `ms` or when `signal` aborts. */
  async take(ms: number, signal?: AbortSignal): Promise<FeedItem | undefined> {
    const ready = this.#shift();
    if (ready !== undefined) return ready;
    if (ms <= 0 || signal?.aborted) return undefined;
    // A timer for each of a thousand events in one chunk would cost more than the events.
    await nextTurn();
    if (this.#items.length > 0) return this.#shift();
    const wait = new LinkedAbort(signal);
    this.#wake = () => wait.abort();
    await this.#clock.sleep(ms, wait.signal);
    this.#wake = undefined;
    wait.end();
    return this.#shift();
  }

  close(): void {
    this.#closed.abort();
    this.#stream?.close();
    this.#wake?.();
  }

  async #pump(): Promise<void> {
    const closed = this.#closed.signal;
    while (this.#stream !== undefined && !closed.aborted) {
      let reason = 'the instance ended the event stream';
      try {
        for await (const event of this.#stream) {
          const { sessionID, outcome } = event.properties;
          if (outcome === 'interrupted') this.interrupted.add(String(sessionID));
          this.#push({ kind: 'event', event });
        }
      } catch (error) {
        reason = messageOf(error);
      }
      if (closed.aborted) return;
      this.breaks += 1;
      const failure = await this.#reconnect(reason);
      if (closed.aborted) return;
      this.#push(failure === undefined ? { kind: 'gap' } : { kind: 'lost', reason: failure });
      if (failure !== undefined) return;
    }
  }

  /** Undefined when the stream is open again, else why not. */
  async #reconnect(reason: string): Promise<string | undefined> {
    const closed = this.#closed.signal;
    const until = this.#clock.monotonic() + RECONNECT_LIMIT_MS;
    let last = reason;
    for (let pause = FIRST_RETRY_MS; this.#clock.monotonic() < until; pause = Math.min(pause * 2, LONGEST_RETRY_MS)) {
      await this.#clock.sleep(pause, closed);
      if (closed.aborted) return last;
      try {
        const stream = await this.#open();
        this.#stream = stream;
        if (closed.aborted) stream.close();
        return undefined;
      } catch (error) {
        last = messageOf(error);
        if (error instanceof RequestError && error.kind === 'locked') return last;
      }
    }
    return last;
  }

  #push(item: FeedItem): void {
    const chars = charsOf(item);
    const { length } = this.#items;
    const isFull = length >= this.#limits.events || (length > 0 && this.#chars + chars > this.#limits.chars);
    if (item.kind === 'event' && isFull) {
      this.#items = [{ kind: 'gap' }];
      this.#chars = 0;
    } else {
      this.#items.push(item);
      this.#chars += chars;
    }
    this.#wake?.();
  }

  #shift(): FeedItem | undefined {
    const item = this.#items.shift();
    if (item !== undefined) this.#chars -= charsOf(item);
    return item;
  }
}

function charsOf(item: FeedItem): number {
  return item.kind === 'event' ? (item.event.chars ?? 0) : 0;
}

/** Proxies may refuse a stream with any status, or hold it back, and still pass on everything else. Unreachable and locked concern every call. */
function unlessWithheld(error: unknown): undefined {
  if (!(error instanceof RequestError) || ['unreachable', 'locked', 'cancelled'].includes(error.kind)) throw error;
}
