/** Serializes by key: what is sent to one session goes one after the other. */
export class SessionLock {
  readonly #tails = new Map<string, Promise<void>>();

  /** Resolves with a release function once every earlier holder of `key` has released. */
  async acquire(key: string): Promise<() => void> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const { promise, resolve } = withResolvers();
    const tail = before.then(() => promise);
    this.#tails.set(key, tail);
    await before;
    return () => {
      resolve();
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    };
  }
}

/** Promise.withResolvers is not in Node 20. */
function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
