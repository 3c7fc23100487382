import type { Clock } from '../../base/clock.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { Instance } from '../../model/instance.ts';
import { connectTo, type Runtime } from '../../operations/runtime.ts';
import { once } from '../lazy-runtime.ts';
import type { KnownSession, RowDeps } from './session-rows.ts';

/** Between two surveys while a page is open. Watched servers get no request in a survey. */
export const SURVEY_PAUSE_MS = 2_000;
/** For reading a session's title, which is done once; a failure is tried again at the next change. */
const LOOKUP_LIMIT_MS = 10_000;
const MAX_LOOKUPS = 4;
const MAX_KNOWN = 1_000;
const MAX_TITLE_CHARS = 200;

/** Surveys one fleet while at least one page is open, and keeps session titles and times that snapshots lack. */
export class FleetFeed implements RowDeps {
  readonly #runtime: Runtime;
  readonly #known = new Map<string, KnownSession | 'asking'>();
  readonly #since = new Map<string, { readonly state: string; readonly sinceMs: number }>();
  /** Servers that are surveyed on their own right now. */
  readonly #surveyed = new Set<string>();
  /** Callers of `changed`. */
  readonly #waiting = new Set<LinkedAbort>();
  #lookups = 0;
  #pages = 0;
  #root = new AbortController();

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** Resolves after the next change of the fleet or of a session's title, and when `signal` aborts; see `Fleet.changed`. */
  async changed(signal: AbortSignal): Promise<void> {
    const next = new LinkedAbort(signal);
    this.#waiting.add(next);
    await this.#runtime.fleet.changed(next.signal);
    this.#waiting.delete(next);
    next.end();
  }

  /** A page opened; surveys go on until it, and every other, calls the returned function. */
  open(): () => void {
    this.#pages += 1;
    if (this.#pages === 1) {
      this.#root = new AbortController();
      void this.#survey(this.#runtime.clock, this.#root.signal);
    }
    return once(() => {
      this.#pages -= 1;
      if (this.#pages === 0) this.#root.abort();
    });
  }

  known(instance: Instance, sessionId: string): KnownSession | undefined {
    const key = keyOf(instance, sessionId);
    const found = this.#known.get(key);
    if (found === undefined) void this.#lookUp(instance, sessionId, key);
    return typeof found === 'object' ? found : undefined;
  }

  since(instance: Instance, sessionId: string, state: string): number {
    const key = keyOf(instance, sessionId);
    const before = this.#since.get(key);
    if (before?.state === state) return before.sinceMs;
    const sinceMs = this.#runtime.clock.now();
    remember(this.#since, key, { state, sinceMs });
    return sinceMs;
  }

  async #survey(clock: Clock, signal: AbortSignal): Promise<void> {
    const { fleet } = this.#runtime;
    while (!signal.aborted) {
      const beganMs = clock.now();
      const survey = fleet.survey(signal).then(() => 'over');
      const pause = (): Promise<unknown> => Promise.race([survey, clock.sleep(SURVEY_PAUSE_MS, signal)]);
      while ((await pause()) !== 'over' && !signal.aborted)
        // An instance hangs; those that answered must not wait for it.
        for (const instance of fleet.snapshot().instances)
          if ((instance.overview?.askedAtMs ?? 0) >= beganMs) void this.#surveyOne(instance, signal);
      await clock.sleep(SURVEY_PAUSE_MS, signal);
    }
  }

  async #surveyOne(instance: Instance, signal: AbortSignal): Promise<void> {
    const { fleet } = this.#runtime;
    const { key } = instance.server;
    if (this.#surveyed.has(key)) return;
    this.#surveyed.add(key);
    try {
      await fleet.surveyServer(await fleet.reach(instance, signal), signal);
    } catch {
      // The next survey finds the reason.
    } finally {
      this.#surveyed.delete(key);
    }
  }

  async #lookUp(instance: Instance, sessionId: string, key: string): Promise<void> {
    if (this.#lookups >= MAX_LOOKUPS) return;
    this.#lookups += 1;
    remember(this.#known, key, 'asking');
    const { signal } = this.#root;
    const deadlineMs = this.#runtime.clock.monotonic() + LOOKUP_LIMIT_MS;
    try {
      const { api } = await connectTo(this.#runtime, instance, { signal, deadlineMs });
      const found = await api.session(sessionId);
      if (found === undefined) return;
      const { title, directory, parentID } = found;
      this.#known.set(key, { title: singleLine(title, MAX_TITLE_CHARS), directory, parentId: parentID });
      for (const next of this.#waiting) next.abort();
    } catch {
      // It is listed without a title; opening it shows the reason.
    } finally {
      this.#lookups -= 1;
      if (this.#known.get(key) === 'asking') this.#known.delete(key);
    }
  }
}

function keyOf({ server }: Instance, sessionId: string): string {
  return `${server.key}\0${sessionId}`;
}

function remember<T>(known: Map<string, T>, key: string, value: T): void {
  known.delete(key);
  known.set(key, value);
  const [oldest] = known.keys();
  if (known.size > MAX_KNOWN && oldest !== undefined) known.delete(oldest);
}
