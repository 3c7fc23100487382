import type { Logger } from '../../base/log.ts';
import { ChangeNotifier } from '../../base/change-notifier.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { unlessAborted } from '../../base/unless-aborted.ts';
import type { DiscoverySource, Scan } from '../source.ts';
import { DirectoryWatch } from './directory-watch.ts';
import type { FileSystem } from './file-system.ts';

export interface WatchedFoldersOptions {
  /** Name of the source. */
  readonly name: string;
  /** Absolute; none needs to exist. */
  readonly paths: readonly string[];
  /** Which of their entries matter. */
  readonly isRelevant: (fileName: string) => boolean;
  /** Scans all of them. */
  readonly scan: (signal: AbortSignal) => Promise<Scan>;
  readonly fs: FileSystem;
  readonly logger: Logger;
}

/** A source over a few folders: one scan at a time, and a watch on each folder for each reader of `changes`. */
export class WatchedFolders implements DiscoverySource {
  readonly name: string;
  readonly #options: WatchedFoldersOptions;
  readonly #scans = new Map<AbortController, Promise<void>>();
  readonly #watches = new Map<ChangeNotifier, readonly DirectoryWatch[]>();
  readonly #closing = new Set<Promise<void>>();
  #lastScan: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: WatchedFoldersOptions) {
    this.name = options.name;
    this.#options = options;
  }

  async scan(signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    if (this.#closed) throw this.#closedError();
    const stop = new LinkedAbort(signal);
    // One at a time: an aborted scan may still hang on a dead network mount, and more of them would exhaust Node's file threads.
    const work = this.#lastScan.then(() => this.#options.scan(stop.signal));
    const settled = work.then(
      () => {},
      () => {},
    );
    this.#lastScan = settled;
    this.#scans.set(stop, settled);
    try {
      return await unlessAborted(work, stop.signal);
    } finally {
      stop.end();
      void settled.then(() => this.#scans.delete(stop));
      for (const watch of [...this.#watches.values()].flat()) watch.verify();
    }
  }

  changes(signal: AbortSignal): AsyncIterable<void> {
    const notifier = new ChangeNotifier(signal);
    if (this.#closed) notifier.end();
    if (notifier.ended.aborted) return notifier;
    const { paths, isRelevant, fs, logger } = this.#options;
    const watches = paths.map(
      (path) => new DirectoryWatch({ path, isRelevant, onChange: () => notifier.notify(), fs, logger }),
    );
    this.#watches.set(notifier, watches);
    notifier.ended.addEventListener('abort', () => {
      this.#watches.delete(notifier);
      const closed = Promise.all(watches.map((watch) => watch.close()));
      const closing = closed.then(() => void this.#closing.delete(closing));
      this.#closing.add(closing);
    });
    return notifier;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const stop of this.#scans.keys()) stop.abort(this.#closedError());
    for (const notifier of this.#watches.keys()) notifier.end();
    await Promise.all([...this.#scans.values(), ...this.#closing]);
  }

  #closedError(): Error {
    return new Error(`the source ${this.name} is closed`);
  }
}
