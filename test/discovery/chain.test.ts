import { describe, expect, onTestFinished, test } from 'vitest';

import {
  Chain,
  HINT_WINDOW_MS,
  LIFETIME_IN_INTERVALS,
  MAX_CANDIDATES,
  SCAN_DEADLINE_MS,
  type SourceView,
} from '../../src/discovery/chain.ts';
import { ChangeNotifier } from '../../src/base/change-notifier.ts';
import type { Candidate } from '../../src/model/candidate.ts';
import {
  type DiscoverySource,
  type Scan,
  type ScanOptions,
  SourceUnavailableError,
} from '../../src/discovery/source.ts';
import type { Logger } from '../../src/base/log.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { deferred, type Deferred } from '../rig/wait.ts';

const INTERVAL_MS = 30_000;

/** A source whose scans end at once with `result`; with 'wait', the test ends them through `openScans`. */
class ScriptedSource implements DiscoverySource {
  readonly name: string;
  result: Scan | Error | 'wait';
  readonly openScans: Array<Deferred<Scan>> = [];
  scans = 0;
  /** The option `thorough` of each scan. */
  readonly thorough: (boolean | undefined)[] = [];
  closed = 0;
  readonly notifiers: ChangeNotifier[] = [];
  changes?: (signal: AbortSignal) => AsyncIterable<void> = (signal) => {
    const notifier = new ChangeNotifier(signal);
    this.notifiers.push(notifier);
    return notifier;
  };

  constructor(result: Scan | Error | 'wait' = scanOf(), name = 'one') {
    this.result = result;
    this.name = name;
  }

  async scan(signal: AbortSignal, options?: ScanOptions): Promise<Scan> {
    this.scans += 1;
    this.thorough.push(options?.thorough);
    if (this.result instanceof Error) throw this.result;
    if (this.result !== 'wait') return this.result;
    const scan = deferred<Scan>();
    this.openScans.push(scan);
    signal.addEventListener('abort', () => this.onAbort(scan), { once: true });
    return scan.promise;
  }

  onAbort(scan: Deferred<Scan>): void {
    scan.reject(new Error('aborted'));
  }

  hint(): void {
    for (const notifier of this.notifiers) notifier.notify();
  }

  async close(): Promise<void> {
    this.closed += 1;
  }
}

async function start(...sources: readonly DiscoverySource[]) {
  const clock = new ManualClock();
  const changes: SourceView[] = [];
  const lines: string[] = [];
  const logger: Logger = { log: (level, message) => void lines.push(`${level} ${message}`) };
  const chain = new Chain(sources, {
    clock,
    logger,
    discoveryIntervalMs: INTERVAL_MS,
    onChange: (view) => void changes.push(view),
  });
  onTestFinished(() => chain.close());
  chain.start();
  await settle();
  return { chain, clock, changes, lines };
}

function candidate(key: string): Candidate {
  return {
    source: 'one',
    key,
    endpoint: { url: `http://127.0.0.1:4096/${key}`, route: 'loopback' },
    claims: { name: key },
    trust: { level: 'trusted' },
  };
}

function scanOf(...keys: readonly string[]): Scan {
  return { candidates: keys.map(candidate), notes: [] };
}

describe('polling', () => {
  test('scans at the start and then once per interval', async () => {
    const source = new ScriptedSource();
    const { clock } = await start(source);
    expect(source.scans).toBe(1);
    await clock.advance(INTERVAL_MS - 1);
    expect(source.scans).toBe(1);
    await clock.advance(1);
    expect(source.scans).toBe(2);
    await clock.advance(3 * INTERVAL_MS);
    expect(source.scans).toBe(5);
  });

  test('every scan is reported with its candidates and notes', async () => {
    const scan = { candidates: [candidate('a')], notes: [{ subject: 'x', reason: 'y' }] };
    const { chain, changes } = await start(new ScriptedSource(scan));
    expect(changes).toEqual([{ name: 'one', status: 'ok', ...scan, dropped: [], scannedAtMs: expect.any(Number) }]);
    expect(chain.views()).toEqual(changes);
  });

  test('a hanging source does not block others', async () => {
    const fine = new ScriptedSource();
    const { clock, chain } = await start(new ScriptedSource('wait'), fine);
    expect(chain.views().map(({ status }) => status)).toEqual(['pending', 'ok']);
    await clock.advance(2 * INTERVAL_MS);
    expect(fine.scans).toBe(3);
  });

  test('the chain uses at most 10,000 candidates and 100 dropped notes of a source, and reports how many more there are', async () => {
    const { candidates } = scanOf(...Array.from({ length: MAX_CANDIDATES + 3 }, (_, index) => String(index)));
    const dropped = Array.from({ length: 130 }, (_, index) => ({ subject: `peer${index}`, reason: 'no' }));
    const { chain } = await start(new ScriptedSource({ candidates, notes: [], dropped }));
    const [view] = chain.views();
    expect(view?.candidates).toHaveLength(MAX_CANDIDATES);
    const reason = '3 of 10003 candidates are left out: at most 10000 of one source are used';
    expect(view?.notes).toEqual([{ subject: 'one', reason }]);
    expect(view?.dropped).toEqual([...dropped.slice(0, 100), { subject: 'one', reason: 'and 30 more' }]);
  });
});

describe('hints', () => {
  test('the first hint scans at once; others within the window cause one scan at its end', async () => {
    const source = new ScriptedSource();
    const { clock } = await start(source);
    await clock.advance(HINT_WINDOW_MS);
    source.hint();
    await settle();
    expect(source.scans).toBe(2);
    for (let count = 0; count < 5; count += 1) {
      source.hint();
      await settle();
    }
    expect(source.scans).toBe(2);
    await clock.advance(HINT_WINDOW_MS);
    expect(source.scans).toBe(3);
    await clock.advance(HINT_WINDOW_MS * 10);
    expect(source.scans).toBe(3);
  });

  test('a hint during a scan causes one more scan after it', async () => {
    const source = new ScriptedSource('wait');
    const { clock } = await start(source);
    source.hint();
    source.hint();
    await clock.advance(HINT_WINDOW_MS * 2);
    expect(source.scans).toBe(1);
    source.openScans[0]?.resolve(scanOf('a'));
    await settle();
    expect(source.scans).toBe(2);
    source.openScans[1]?.resolve(scanOf('a'));
    await clock.advance(HINT_WINDOW_MS * 10);
    expect(source.scans).toBe(2);
  });

  test('hints that end or throw are restarted with growing pauses', async () => {
    const source = new ScriptedSource();
    let started = 0;
    source.changes = () => {
      started += 1;
      if (started % 2 === 0) throw new Error('no watcher');
      return (async function* () {})();
    };
    const { clock } = await start(source);
    expect(started).toBe(1);
    await clock.advance(1000);
    expect(started).toBe(2);
    await clock.advance(1999);
    expect(started).toBe(2);
    await clock.advance(1);
    expect(started).toBe(3);
    await clock.advance(10 * 60_000);
    expect(started).toBeLessThan(20);
  });
});

describe('failures', () => {
  test('a failing source keeps its last result until that expires', async () => {
    const source = new ScriptedSource(scanOf('a'));
    const { chain, clock } = await start(source);
    source.result = new Error('disk on fire');
    await clock.advance(LIFETIME_IN_INTERVALS * INTERVAL_MS);
    expect(chain.views()).toMatchObject([{ status: 'failed', reason: 'disk on fire', candidates: [{ key: 'a' }] }]);
    await clock.advance(INTERVAL_MS);
    expect(chain.views()).toMatchObject([{ status: 'failed', reason: 'disk on fire', candidates: [] }]);
    source.result = scanOf('a');
    await clock.advance(INTERVAL_MS);
    expect(chain.views()).toMatchObject([{ status: 'ok', candidates: [{ key: 'a' }] }]);
  });

  test('a source whose system is missing is logged once as unavailable until it returns, and never as failed', async () => {
    const source = new ScriptedSource(new SourceUnavailableError('no socket'));
    // Without hints, the chain logs nothing about restarting them.
    delete source.changes;
    const { chain, clock, lines } = await start(source);
    await clock.advance(3 * INTERVAL_MS);
    expect(chain.views()).toMatchObject([{ status: 'unavailable', reason: 'no socket' }]);
    expect(lines).toEqual(['debug source one is not available']);
    source.result = scanOf();
    await clock.advance(INTERVAL_MS);
    source.result = new SourceUnavailableError('no socket');
    await clock.advance(INTERVAL_MS);
    expect(lines).toEqual([
      // A system that was missing from the start is probably not in use.
      'debug source one is not available',
      'info source one is available again',
      'info source one is not available',
    ]);
  });

  test('a scan is reported and aborted after its deadline', async () => {
    const source = new ScriptedSource('wait');
    const { chain, clock } = await start(source);
    await clock.advance(SCAN_DEADLINE_MS);
    expect(chain.views()).toMatchObject([
      { status: 'failed', reason: `the scan did not end within ${SCAN_DEADLINE_MS} ms` },
    ]);
    source.result = scanOf('a');
    await clock.advance(INTERVAL_MS);
    expect(chain.views()).toMatchObject([{ status: 'ok' }]);
  });

  test('while a scan ignores its abort, no second one starts, and the result still expires', async () => {
    const source = new ScriptedSource(scanOf('a'));
    const { chain, clock } = await start(source);
    source.onAbort = () => {};
    source.result = 'wait';
    await clock.advance(INTERVAL_MS + SCAN_DEADLINE_MS);
    expect(source.scans).toBe(2);
    await clock.advance(4 * INTERVAL_MS);
    expect(source.scans).toBe(2);
    expect(chain.views()).toMatchObject([{ status: 'failed', candidates: [] }]);
    source.openScans[0]?.resolve(scanOf('late'));
    source.result = scanOf('b');
    await clock.advance(INTERVAL_MS);
    expect(chain.views()).toMatchObject([{ status: 'ok', candidates: [{ key: 'b' }] }]);
  });
});

describe('waiting for scans', () => {
  test('scanned resolves when the first scan of every source has ended, even if it failed', async () => {
    const slow = new ScriptedSource('wait', 'slow');
    const { chain } = await start(slow, new ScriptedSource(new Error('no'), 'failing'));
    let scanned = false;
    const waiting = chain.scanned().then(() => (scanned = true));
    await settle();
    expect(scanned).toBe(false);
    slow.openScans[0]?.resolve(scanOf());
    await waiting;
  });

  test('rescan resolves after a scan that began after the call, without waiting for the hint window', async () => {
    const source = new ScriptedSource('wait');
    const { chain } = await start(source);
    let rescanned = false;
    const waiting = chain.rescan().then(() => (rescanned = true));
    await settle();
    source.openScans[0]?.resolve(scanOf('before'));
    await settle();
    expect([source.scans, rescanned]).toEqual([2, false]);
    expect(source.thorough).toEqual([false, true]);
    source.openScans[1]?.resolve(scanOf('after'));
    await waiting;
    expect(chain.views()).toMatchObject([{ candidates: [{ key: 'after' }] }]);
  });
});

describe('closing', () => {
  test('ends scans, hints and timers, closes the sources, and is idempotent', async () => {
    const source = new ScriptedSource('wait');
    const { chain, clock, changes } = await start(source);
    const waiting = chain.rescan();
    await Promise.all([chain.close(), chain.close()]);
    await waiting;
    await chain.scanned();
    expect(source.closed).toBe(1);
    expect(clock.due()).toBe(0);
    source.hint();
    await clock.advance(INTERVAL_MS * 2);
    expect([source.scans, changes]).toEqual([1, []]);
  });

  test('does not wait for a hanging source', async () => {
    const source = new ScriptedSource();
    source.close = () => new Promise(() => {});
    const { chain, clock } = await start(source);
    const closing = chain.close();
    await clock.advance(500);
    await closing;
  });
});
