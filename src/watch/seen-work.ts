import type { Instance, Overview, Waiting } from '../model/instance.ts';
import { retryingLine } from '../opencode/waiting.ts';

/** One session that runs. */
export interface RunningSession {
  /** Where it runs; empty if an OpenCode 2 did not say. */
  readonly directory: string;
  readonly waiting: readonly Waiting[];
  /** Why it retries; absent if it does not, or if the survey does not show which session does. */
  readonly retry?: string | undefined;
}

/** What a survey of one server found. */
export interface SeenWork {
  readonly running: ReadonlyMap<string, RunningSession>;
  /** Directories whose running sessions are known. */
  readonly asked: ReadonlySet<string>;
  /** Directories whose running sessions are not known. */
  readonly unknown: ReadonlySet<string>;
  /** Directories in which one of several sessions retries; which one must be asked. */
  readonly retryingIn: readonly string[];
  /** Directories with a session used since `sinceMs`. */
  readonly recent: readonly string[];
  /** Every request was answered. */
  readonly isWhole: boolean;
}

/** @param startedAtMs when the survey began, by the clock of `Overview.askedAtMs` */
export function seenWork(instances: readonly Instance[], startedAtMs: number, sinceMs: number): SeenWork {
  const running = new Map<string, RunningSession>();
  const asked = new Set<string>();
  const unknown = new Set<string>();
  const retryingIn: string[] = [];
  const recent: string[] = [];
  let isWhole = instances.length > 0;
  for (const { server, directory = '', overview } of instances) {
    const isFresh = overview !== undefined && overview.askedAtMs >= startedAtMs && isHealthy(server);
    isWhole &&= isFresh && overview.stale === undefined;
    if (!isFresh || overview.stale?.some((part) => part !== 'session') === true) {
      unknown.add(directory);
      continue;
    }
    asked.add(directory);
    const { activity, session } = overview;
    const isOnlyOne = overview.running.length === 1;
    if (activity.kind === 'retrying' && !isOnlyOne) retryingIn.push(directory);
    if (session !== undefined && session.updatedMs >= sinceMs && directory !== '') recent.push(directory);
    for (const id of overview.running) {
      const retry = activity.kind === 'retrying' && isOnlyOne ? retryingLine(activity) : undefined;
      const waiting = [...(running.get(id)?.waiting ?? []), ...waitingOf(overview, id)];
      running.set(id, { directory, waiting, ...(retry !== undefined && { retry }) });
    }
  }
  return { running, asked, unknown, retryingIn, recent, isWhole };
}

function waitingOf({ waiting }: Overview, id: string): readonly Waiting[] {
  return waiting.filter(({ sessionId }) => sessionId === id);
}

function isHealthy({ endpoints: [best] }: Instance['server']): boolean {
  return best.result.status === 'healthy';
}
