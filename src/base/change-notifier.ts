/**
 * The "look again" of a source, for one reader. However many notifications come while nobody
 * reads, the reader gets one: they carry no data, so a queue would only grow.
 */
export class ChangeNotifier implements AsyncIterableIterator<void> {
  /** Called once, whoever ends it: the reader, the signal or the source. */
  onEnd: () => void = () => {};
  #pending = false;
  #ended = false;
  readonly #readers: ((result: IteratorResult<void, undefined>) => void)[] = [];

  notify(): void {
    const reader = this.#readers.shift();
    if (reader) reader({ done: false, value: undefined });
    else this.#pending = true;
  }

  /** Ends the iteration; a notification that was not read yet is dropped. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const reader of this.#readers.splice(0)) reader({ done: true, value: undefined });
    this.onEnd();
  }

  next(): Promise<IteratorResult<void, undefined>> {
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
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
