import { type Clock, repeat } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { within } from '../base/within.ts';
import type { Candidate, Note } from '../model/candidate.ts';
import type { SourceState } from '../model/instance.ts';
import { boundedNotes, type DiscoverySource, type Scan, type ScanOptions, SourceUnavailableError } from './source.ts';
import { reasonOf } from '../base/errors.ts';

/** The state of a source with its candidates and notes, from the last successful scan until that expires. */
export interface SourceView extends Omit<SourceState, 'candidates'> {
  readonly candidates: readonly Candidate[];
  readonly notes: readonly Note[];
}

export interface ChainDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly discoveryIntervalMs: number;
  /** Called after each scan, successful or not. */
  readonly onChange: (source: SourceView) => void;
}

/** A scan reads local files or asks a local daemon; one that takes this long hangs. */
export const SCAN_DEADLINE_MS = 10_000;

/** Joins the hints of one atomic rename, which are milliseconds apart; a person does not notice a tenth of a second. */
export const HINT_WINDOW_MS = 100;

/** The last result expires after this many polling intervals without a successful scan. */
export const LIFETIME_IN_INTERVALS = 3;

/** Nobody runs as many instances: a source with more is broken or hostile. */
export const MAX_CANDIDATES = 10_000;

/** A tailnet may have thousands of machines; this is enough to find your own. */
const MAX_DROPPED = 100;

const RESTART_FIRST_MS = 1000;
const RESTART_MAX_MS = 60_000;

/** A source that has not closed by then is abandoned. */
const CLOSE_LIMIT_MS = 500;

/** Runs every source independently: polls it, follows its hints, and keeps its last result for a while. */
export class Chain {
  readonly #runners: readonly SourceRunner[];
  #closing: Promise<unknown> | undefined;

  constructor(sources: readonly DiscoverySource[], deps: ChainDeps) {
    this.#runners = sources.map((source) => new SourceRunner(source, deps));
  }

  /** Begins to scan and to listen for hints. */
  start(): void {
    for (const runner of this.#runners) runner.start();
  }

  views(): readonly SourceView[] {
    return this.#runners.map(({ view }) => view);
  }

  /** Resolves when every source has ended its first scan. Never rejects. */
  async scanned(): Promise<void> {
    await Promise.all(this.#runners.map((runner) => runner.scanned));
  }

  /** Resolves when every source has ended a thorough scan that began after this call. Never rejects. */
  async rescan(): Promise<void> {
    await Promise.all(this.#runners.map((runner) => runner.rescan()));
  }

  /** Ends every scan, timer and watcher, and closes the sources. Idempotent. */
  async close(): Promise<void> {
    await (this.#closing ??= Promise.all(this.#runners.map((runner) => runner.close())));
  }
}

class SourceRunner {
  view: SourceView;
  readonly scanned: Promise<void>;
  #endFirstScan: () => void = () => {};
  readonly #source: DiscoverySource;
  readonly #deps: ChainDeps;
  readonly #root = new AbortController();
  #started = false;
  /** A hint arrived after the last scan began. */
  #hinted = false;
  #waiters: (() => void)[] = [];
  #wake: () => void = () => {};
  #lastGoodMs: number | undefined;
  /** A scan is running, perhaps beyond its deadline. */
  #isScanning = false;
  #loops: Promise<void>[] = [];

  constructor(source: DiscoverySource, deps: ChainDeps) {
    this.#source = source;
    this.#deps = deps;
    this.view = { name: source.name, status: 'pending', candidates: [], notes: [], dropped: [] };
    this.scanned = new Promise((resolve) => {
      this.#endFirstScan = resolve;
    });
  }

  start(): void {
    if (this.#started || this.#root.signal.aborted) return;
    this.#started = true;
    this.#loops = [this.#scanForever(), this.#followHints()];
  }

  rescan(): Promise<void> {
    if (!this.#started || this.#root.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      this.#wake();
    });
  }

  async close(): Promise<void> {
    this.#root.abort();
    this.#wake();
    this.#endFirstScan();
    for (const resolve of this.#waiters.splice(0)) resolve();
    const { clock, logger } = this.#deps;
    const late = (): Error => new Error(`it did not end within ${CLOSE_LIMIT_MS} ms`);
    const limit = { clock, ms: CLOSE_LIMIT_MS, late };
    await within(limit, () => Promise.all([...this.#loops, this.#source.close?.()])).catch((error: unknown) => {
      logger.log('warn', `source ${this.#source.name} did not close cleanly`, { reason: reasonOf(error) });
    });
  }

  async #scanForever(): Promise<void> {
    const { clock, discoveryIntervalMs } = this.#deps;
    const { signal } = this.#root;
    while (!signal.aborted) {
      const startMs = clock.monotonic();
      this.#hinted = false;
      const waiters = this.#waiters.splice(0);
      const window = this.#sleep(HINT_WINDOW_MS, () => this.#waiters.length > 0);
      await this.#scan({ thorough: waiters.length > 0 });
      this.#endFirstScan();
      for (const resolve of waiters) resolve();
      await window;
      const restMs = discoveryIntervalMs - (clock.monotonic() - startMs);
      await this.#sleep(restMs, () => this.#hinted || this.#waiters.length > 0);
    }
  }

  /** Sleeps for `ms`, or until `#wake` is called while `isDue` holds. One at a time. */
  async #sleep(ms: number, isDue: () => boolean): Promise<void> {
    const end = new AbortController();
    this.#wake = () => {
      if (isDue() || this.#root.signal.aborted) end.abort();
    };
    this.#wake();
    await this.#deps.clock.sleep(ms, end.signal);
    this.#wake = () => {};
  }

  async #scan(options: ScanOptions): Promise<void> {
    // On a file system that hangs, each poll would otherwise add a stuck scan that holds a thread.
    if (this.#isScanning) {
      this.#failed(new Error(`a scan that began more than ${SCAN_DEADLINE_MS} ms ago still has not ended`));
      return;
    }
    const { signal: closing } = this.#root;
    const late = (): Error => new Error(`the scan did not end within ${SCAN_DEADLINE_MS} ms`);
    this.#isScanning = true;
    try {
      const limit = { clock: this.#deps.clock, ms: SCAN_DEADLINE_MS, late, signal: closing };
      const scan = await within(limit, async (signal) => {
        try {
          return await this.#source.scan(signal, options);
        } finally {
          this.#isScanning = false;
        }
      });
      if (!closing.aborted) this.#succeeded(scan);
    } catch (error) {
      if (!closing.aborted) this.#failed(error);
    }
  }

  #succeeded(scan: Scan): void {
    const { name } = this.#source;
    const before = this.view.status;
    this.#lastGoodMs = this.#deps.clock.monotonic();
    const { candidates, notes, dropped = [] } = scan;
    const excess = candidates.length - MAX_CANDIDATES;
    const reason = `${excess} of ${candidates.length} candidates are left out: at most ${MAX_CANDIDATES} of one source are used`;
    this.view = {
      name,
      status: 'ok',
      candidates: candidates.slice(0, MAX_CANDIDATES),
      notes: excess > 0 ? [...notes, { subject: name, reason }] : notes,
      dropped: boundedNotes(dropped, MAX_DROPPED, name),
      scannedAtMs: this.#deps.clock.now(),
    };
    if (before === 'failed' || before === 'unavailable')
      this.#deps.logger.log('info', `source ${name} is available again`);
    this.#deps.onChange(this.view);
  }

  #failed(error: unknown): void {
    const { name } = this.#source;
    const { clock, logger, discoveryIntervalMs, onChange } = this.#deps;
    const status = error instanceof SourceUnavailableError ? 'unavailable' : 'failed';
    const reason = reasonOf(error);
    const expired =
      this.#lastGoodMs === undefined ||
      clock.monotonic() - this.#lastGoodMs > LIFETIME_IN_INTERVALS * discoveryIntervalMs;
    const before = this.view;
    this.view = {
      name,
      status,
      reason,
      candidates: expired ? [] : before.candidates,
      notes: expired ? [] : before.notes,
      dropped: expired ? [] : before.dropped,
      scannedAtMs: clock.now(),
    };
    if (status === 'unavailable') {
      // A system that was missing from the start is probably not in use here.
      const level = before.status === 'pending' ? 'debug' : 'info';
      if (before.status !== 'unavailable') logger.log(level, `source ${name} is not available`, { reason });
    } else if (before.status !== 'failed' || before.reason !== reason) {
      logger.log('warn', `source ${name} failed`, { reason });
    }
    onChange(this.view);
  }

  async #followHints(): Promise<void> {
    const { clock, logger } = this.#deps;
    const { signal } = this.#root;
    const { name } = this.#source;
    await repeat({ clock, signal, firstMs: RESTART_FIRST_MS, maxMs: RESTART_MAX_MS }, async () => {
      if (this.#source.changes === undefined) return 'done';
      try {
        for await (const _ of this.#source.changes(signal)) {
          if (signal.aborted) return 'done';
          this.#hinted = true;
          this.#wake();
        }
        logger.log('debug', `source ${name} ended its hints; listening again`);
      } catch (error) {
        if (!signal.aborted)
          logger.log('debug', `source ${name} failed to give hints; listening again`, { reason: reasonOf(error) });
      }
      return 'again';
    });
  }
}
