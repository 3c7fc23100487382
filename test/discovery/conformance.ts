import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { ROUTES } from '../../src/model/candidate.ts';
import { SourceUnavailableError, type DiscoverySource } from '../../src/discovery/source.ts';
import { singleLine } from '../../src/base/plain-text.ts';
import { deferred, until, within } from '../rig/wait.ts';

/** A source over a system made by the test. */
export interface Stage extends AsyncDisposable {
  readonly source: DiscoverySource;
  /** Keys of the expected candidates. */
  readonly keys: readonly string[];
}

export interface HintingStage extends Stage {
  readonly source: DiscoverySource & Required<Pick<DiscoverySource, 'changes' | 'close'>>;
  /** Causes a change that the source should hint at. */
  readonly change: () => Promise<void>;
}

/** Creates a source in each state of the contract. States that the source cannot have are left out. */
export interface Subject {
  readonly name: string;
  readonly working: () => Promise<Stage>;
  /** As `working`, for a source with `changes`. */
  readonly hinting?: () => Promise<HintingStage>;
  /** The system that the source reads is missing. */
  readonly unavailable?: () => Promise<Stage>;
  /** The system fails after a partial result. */
  readonly failingMidway?: () => Promise<Stage>;
  /** A scan blocks until `release`. `entered` resolves once it does. */
  readonly hanging?: () => Promise<Stage & Pick<ReturnType<typeof holdUp>, 'entered' | 'release'>>;
}

const never = new AbortController().signal;

/** The time within which a source must react on any machine. */
const PROMPT_MS = 5000;

/** The contract of `DiscoverySource`, run on every source. */
export function conformance(subject: Subject): void {
  describe(`${subject.name} keeps the contract of a source`, () => {
    const stages: Stage[] = [];
    afterEach(async () => {
      for (const stage of stages.splice(0)) {
        await stage.source.close?.();
        await stage[Symbol.asyncDispose]();
      }
    });
    async function disposeAtEnd<T extends Stage>(opening: Promise<T>): Promise<T> {
      const stage = await opening;
      stages.push(stage);
      return stage;
    }

    it('returns all well-formed candidates from two concurrent scans and from a later scan', async () => {
      const { source, keys } = await disposeAtEnd(subject.working());
      const [first, second] = await Promise.all([source.scan(never), source.scan(never)]);
      const { candidates, notes } = first;
      expect(candidates.map(({ key }) => key).toSorted()).toEqual([...keys].toSorted());
      for (const candidate of candidates) {
        expect(candidate.source).toBe(source.name);
        expect(ROUTES).toContain(candidate.endpoint.route);
        expect(candidate.endpoint.url).toMatch(/^https?:\/\/.*[^/]$/);
        for (const text of Object.values(candidate.claims).filter((claim) => typeof claim === 'string'))
          expect(singleLine(text, 4096)).toBe(text);
      }
      for (const text of notes.flatMap((note) => [note.subject, note.reason]))
        expect(singleLine(text, 4096)).toBe(text);
      expect(second).toEqual(first);
      expect(await source.scan(never)).toEqual(first);
    });

    it('rejects a scan whose signal has aborted, with the reason', async () => {
      const { source } = await disposeAtEnd(subject.working());
      await expect(source.scan(AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough');
    });

    it('leaves nothing open when it is closed once or twice', async () => {
      const before = openResources();
      const stage = await subject.working();
      const abort = new AbortController();
      // `close` ends the first listener, its signal the second, its reader the third.
      const signals = stage.source.changes ? [never, abort.signal, never] : [];
      const listening = signals.flatMap((signal) => stage.source.changes?.(signal)[Symbol.asyncIterator]() ?? []);
      await Promise.all(listening.map((hints) => within(hints.next(), 'the first hint')));
      await stage.source.scan(never);
      await stage.source.scan(abort.signal);
      abort.abort();
      await listening[2]?.return?.();
      const unfinished = stage.source.scan(never).catch(() => {});
      await Promise.all([stage.source.close?.(), stage.source.close?.()]);
      await unfinished;
      await stage[Symbol.asyncDispose]();
      // Libuv frees closed handles in the next turn of its loop.
      await until('everything to be closed', () => added(before, openResources()).length === 0, 2000).catch(() => {});
      expect(added(before, openResources())).toEqual([]);
    });

    it.each(casesOf(subject.unavailable))('rejects as unavailable when its system is missing', async (unavailable) => {
      const { source } = await disposeAtEnd(unavailable());
      await expect(source.scan(never)).rejects.toThrow(SourceUnavailableError);
    });

    it.each(casesOf(subject.failingMidway))('rejects instead of returning a partial result', async (failingMidway) => {
      const { source } = await disposeAtEnd(failingMidway());
      const error: unknown = await source.scan(never).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(Error);
      expect(error).not.toBeInstanceOf(SourceUnavailableError);
    });

    describe.each(casesOf(subject.hanging))('on a system that hangs', (hanging) => {
      it('rejects a scan as soon as its signal aborts, and begins the next scan after the first has ended', async () => {
        const { source, keys, entered, release } = await disposeAtEnd(hanging());
        const abort = new AbortController();
        const first = source.scan(abort.signal);
        await within(entered, 'the scan to reach the system');
        abort.abort(new Error('enough'));
        await expect(within(first, 'the scan to reject', PROMPT_MS)).rejects.toThrow('enough');
        const second = source.scan(never);
        // This scan takes longer than `second` would need to reach the system if it did not wait.
        const other = await disposeAtEnd(subject.working());
        await other.source.scan(never);
        release();
        const { candidates } = await within(second, 'the next scan');
        expect(candidates).toHaveLength(keys.length);
      });

      it('rejects a running scan when it is closed', async () => {
        const { source, entered, release } = await disposeAtEnd(hanging());
        const scan = source.scan(never);
        await within(entered, 'the scan to reach the system');
        const closing = source.close?.();
        await expect(within(scan, 'the scan to reject', PROMPT_MS)).rejects.toThrow(/closed/);
        release();
        await closing;
      });
    });

    describe.each(casesOf(subject.hinting))('hints', (hinting) => {
      async function listen(signal = never): Promise<{ stage: HintingStage; hints: AsyncIterator<void> }> {
        const stage = await disposeAtEnd(hinting());
        return { stage, hints: stage.source.changes(signal)[Symbol.asyncIterator]() };
      }

      it('arrive at the start of listening and after a change', async () => {
        const { stage, hints } = await listen();
        expect(await next(hints)).toBe('hint');
        const hint = next(hints);
        await stage.change();
        expect(await hint).toBe('hint');
      });

      it('end when the signal aborts', async () => {
        const abort = new AbortController();
        const { hints } = await listen(abort.signal);
        await next(hints);
        const hint = next(hints);
        abort.abort();
        expect(await hint).toBe('end');
        expect(await next(hints)).toBe('end');
      });

      it('end without a first hint if the signal has aborted or the source is closed', async () => {
        const { stage, hints } = await listen(AbortSignal.abort());
        expect(await next(hints)).toBe('end');
        const others = stage.source.changes(never)[Symbol.asyncIterator]();
        await stage.source.close();
        expect(await next(others)).toBe('end');
      });

      it('end for good when the source is closed, and unread hints are dropped', async () => {
        const { stage, hints } = await listen();
        const unread = stage.source.changes(never)[Symbol.asyncIterator]();
        await next(hints);
        const waiting = next(hints);
        await stage.source.close();
        expect([await waiting, await next(unread)]).toEqual(['end', 'end']);
        await stage.change();
        expect(await next(hints)).toBe('end');
        const late = stage.source.changes(never)[Symbol.asyncIterator]();
        expect(await next(late)).toBe('end');
      });
    });
  });
}

/** Cases for `it.each`: none for a state that the source cannot have. */
function casesOf<State>(state: State | undefined): State[] {
  return state === undefined ? [] : [state];
}

async function next(hints: AsyncIterator<void>): Promise<'hint' | 'end'> {
  const { done } = await within(hints.next(), 'a hint or the end');
  return done ? 'end' : 'hint';
}

/** Open resources of this process, according to the system and to Node. */
function openResources(): string[] {
  const resources = process.getActiveResourcesInfo().filter((resource) => resource !== 'Immediate');
  if (process.platform !== 'linux') return resources;
  for (const descriptor of readdirSync('/proc/self/fd')) {
    try {
      const target = readlinkSync(`/proc/self/fd/${descriptor}`);
      // Libuv keeps one inotify descriptor forever; count its watches.
      if (target.includes('inotify')) {
        const watches = readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8').matchAll(/^inotify wd:.*$/gm);
        resources.push(...[...watches].map(() => 'inotify watch'));
      } else if (target.startsWith('/') && !target.startsWith('/proc/')) {
        resources.push(target);
      }
    } catch {
      // The descriptor of this listing is closed by now.
    }
  }
  return resources;
}

function added(before: readonly string[], after: readonly string[]): string[] {
  const rest = [...before];
  return after.filter((resource) => {
    const at = rest.indexOf(resource);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}

/** Work that calls `pass` blocks until `release`. */
export function holdUp() {
  const entered = deferred<void>();
  const open = deferred<void>();
  return {
    entered: entered.promise,
    release: () => open.resolve(),
    pass: () => {
      entered.resolve();
      return open.promise;
    },
  };
}
