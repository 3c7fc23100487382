import { LinkedAbort } from './linked-abort.ts';

/**
 * Hints to scan again, for one reader. Hints that arrive while nobody reads are merged into one,
 * because they carry no data.
 */
export class ChangeNotifier implements AsyncIterableIterator<void> {
  readonly #life: LinkedAbort;
  #pending = false;
  readonly #readers: ((result: IteratorResult<void, undefined>) => void)[] = [];

  /** Any of these signals ends it. */
  constructor(...until: readonly AbortSignal[]) {
    this.#life = new LinkedAbort(...until);
    if (this.ended.aborted) this.end();
    else this.ended.addEventListener('abort', () => this.end(), { once: true });
  }

  /** Aborts once, when the reader, a signal or the source ends it. */
  get ended(): AbortSignal {
    return this.#life.signal;
  }

  notify(): void {
    const reader = this.#readers.shift();
    if (reader) reader({ done: false, value: undefined });
    else this.#pending = true;
  }

  /** Ends the iteration; an unread notification is dropped. */
  end(): void {
    this.#life.end();
    for (const reader of this.#readers.splice(0)) reader({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<void, undefined>> {
    if (this.ended.aborted) return Promise.resolve({ done: true, value: undefined });
    if (!this.#pending) return new Promise((resolve) => this.#readers.push(resolve));
    this.#pending = false;
    return Promise.resolve({ done: false, value: undefined });
  }

  return(): Promise<IteratorResult<void, undefined>> {
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** The notifiers of all readers of one source. */
export class ChangeNotifiers {
  readonly #source: AbortSignal;
  readonly #open = new Set<ChangeNotifier>();

  /** `source` ends all of them. */
  constructor(source: AbortSignal) {
    this.#source = source;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Opens a notifier for a new reader. `onEnd` is called when it ends, unless it has ended already. */
  open(signal: AbortSignal, onEnd: () => void = () => {}): ChangeNotifier {
    const notifier = new ChangeNotifier(signal, this.#source);
    if (notifier.ended.aborted) return notifier;
    this.#open.add(notifier);
    notifier.ended.addEventListener('abort', () => {
      this.#open.delete(notifier);
      onEnd();
    });
    return notifier;
  }

  notify(): void {
    for (const notifier of this.#open) notifier.notify();
  }
}
