import { systemClock } from '../../base/clock.ts';
import { within } from '../../base/within.ts';
import type { Dialect } from '../../model/instance.ts';
import type { OpencodeApi } from '../../opencode/api.ts';
import { createApi } from '../../opencode/dialects/dialects.ts';
import type { Session, SessionStatus } from '../../opencode/schema.ts';
import { formatAge } from '../../operations/answer.ts';
import { askedLine, listAsked } from '../../operations/respond/asked.ts';
import { sessionState, type SessionState } from '../../operations/sessions/session-state.ts';
import { sessionsAtRest } from '../../operations/sessions/sessions-at-rest.ts';
import { sessionRow } from '../../operations/sessions/sessions.ts';
import type { SessionRow } from '../../operations/shapes.ts';
import { quoteName, safeToShow } from '../../base/plain-text.ts';
import type { CommandOptions, ExitCode } from '../status/places.ts';
import { reasonOf } from '../../base/errors.ts';
import { askRegistered, type Registered } from '../status/registered.ts';
import { cell, fitted, fittedPath, WIDTH, wrapped } from '../status/table.ts';

export interface SessionsOptions extends CommandOptions {
  readonly json: boolean;
  /** Time limit for each healthy instance; default 8 s. */
  readonly limitMs?: number;
}

/** The output of `sessions --json`. Fields may be added; these keep their names and meanings. Text is safe to show. */
export interface SessionsReport {
  readonly format: 1;
  /** The newest sessions of each instance, most recently updated first. */
  readonly sessions: readonly FoundSession[];
  /** Instances whose sessions are not in the list, and why. */
  readonly missing: readonly { readonly instance: string; readonly reason: string }[];
}

export interface FoundSession extends SessionRow {
  /** Several if processes share a home, since each of them knows the session. */
  readonly instances: readonly string[];
}

const LISTED_PER_INSTANCE = 30;
const SHOWN = 40;
/** A cold instance answers its first session request after some 1.2 s; a hung one must not delay the others for long. */
const INSTANCE_LIMIT_MS = 8_000;

/** Prints the recent sessions of every instance registered here. Exit code 1 if the registry directory or an instance could not be read. */
export async function runSessions({
  settings,
  json,
  out,
  signal,
  limitMs = INSTANCE_LIMIT_MS,
}: SessionsOptions): Promise<ExitCode> {
  const { registered, problem } = await askRegistered(settings, signal);
  const answers = await Promise.all(registered.map((one) => sessionsOf(one, limitMs, signal)));
  const missing = answers.flatMap((answer) => ('reason' in answer ? [answer] : []));
  if (problem !== undefined) missing.push({ instance: settings.registryDir.path, reason: problem });
  const report: SessionsReport = {
    format: 1,
    sessions: merged(answers.flatMap((answer) => ('sessions' in answer ? answer.sessions : []))),
    missing,
  };
  out(json ? `${JSON.stringify(safeToShow(report), undefined, 2)}\n` : render(report, systemClock.now()));
  return missing.length === 0 ? 0 : 1;
}

type Answer = { readonly sessions: readonly FoundSession[] } | { readonly instance: string; readonly reason: string };

async function sessionsOf(
  { candidate, answer, reached }: Registered,
  limitMs: number,
  signal: AbortSignal,
): Promise<Answer> {
  const instance = candidate.claims.name ?? candidate.key;
  if (reached === undefined) return { instance, reason: 'reason' in answer ? answer.reason : answer.state };
  const { dialect, connection, directory: ownDirectory } = reached;
  const late = (): Error => new Error(`no answer within ${limitMs / 1000} s`);
  try {
    return await within({ clock: systemClock, ms: limitMs, late, signal }, async (cut) => {
      const api = createApi(dialect, connection, cut);
      const [sessions, statuses] = await Promise.all([
        api.sessions({ rootsOnly: true, limit: LISTED_PER_INSTANCE }),
        api.statuses(ownDirectory),
      ]);
      const stateOf = await sessionStates(sessions, statuses, { api, dialect, ownDirectory });
      return {
        sessions: sessions.map((session) => ({ ...sessionRow(session, stateOf(session)), instances: [instance] })),
      };
    });
  } catch (error) {
    return { instance, reason: reasonOf(error) };
  }
}

/** The state of each session in the process that listed them. */
async function sessionStates(
  sessions: readonly Session[],
  statuses: ReadonlyMap<string, SessionStatus>,
  {
    api,
    dialect,
    ownDirectory,
  }: { readonly api: OpencodeApi; readonly dialect: Dialect; readonly ownDirectory: string },
): Promise<(session: Session) => SessionState> {
  const nowMs = Date.now();
  const isKnownAtRest = ({ directory }: Session): boolean =>
    dialect === 'opencode-1' ? directory === ownDirectory : dialect === 'opencode-2';
  // To show how a session ended, the preview would load the session's directory.
  const resting = sessions.filter((session) => !statuses.has(session.id) && isKnownAtRest(session));
  const atRest = await sessionsAtRest(resting, { api, statuses: () => api.statuses(ownDirectory), nowMs });
  // What waits is also running.
  const asked = statuses.size === 0 ? [] : (await listAsked({ api }, [ownDirectory], statuses)).asked;
  return ({ id }) => {
    const known = atRest.get(id);
    if (known !== undefined) return known;
    if (dialect === 'opencode-2-preview' && !statuses.has(id)) return { state: 'unknown' };
    const waiting = asked.filter(({ session }) => session.id === id).map(askedLine);
    return sessionState(statuses.get(id), { waiting, nowMs });
  };
}

/** The states that a session can show in a process that does not run it. */
const AT_REST: ReadonlySet<string> = new Set<SessionState['state']>(['idle', 'starting', 'interrupted']);

/** One row for each session. If several processes know it, its state is from the one that runs it. */
function merged(rows: readonly FoundSession[]): readonly FoundSession[] {
  const byId = new Map<string, FoundSession>();
  for (const row of rows) {
    const known = byId.get(row.id);
    const best = known === undefined || AT_REST.has(known.state) ? row : known;
    byId.set(row.id, { ...best, instances: [...(known?.instances ?? []), ...row.instances] });
  }
  return [...byId.values()].toSorted((one, other) => other.updated.localeCompare(one.updated));
}

const STATE_WIDTH = 11;
const AGE_WIDTH = 9;

function render({ sessions, missing }: SessionsReport, nowMs: number): string {
  const lines = sessions.slice(0, SHOWN).flatMap((session) => sessionLines(session, nowMs));
  if (sessions.length === 0) lines.push('No sessions.');
  if (sessions.length > SHOWN) lines.push(`and ${sessions.length - SHOWN} more; --json shows all`);
  for (const { instance, reason } of missing.slice(0, SHOWN))
    lines.push(...wrapped(`no sessions of ${quoteName(instance)}: ${reason}`, ''));
  if (missing.length > SHOWN) lines.push(`and ${missing.length - SHOWN} more that gave no sessions`);
  return `${lines.join('\n')}\n`;
}

function sessionLines(session: FoundSession, nowMs: number): readonly string[] {
  const { title, state, updated, id, instances, directory } = session;
  const age = formatAge(nowMs - Date.parse(updated));
  const head = `${cell(state, STATE_WIDTH)} ${cell(age, AGE_WIDTH)} ${fitted(title, WIDTH - STATE_WIDTH - AGE_WIDTH - 2)}`;
  const where = `${fitted(instances.join(', '), 28)} ${id} `;
  return [head.trimEnd(), `  ${where}${fittedPath(directory, Math.max(12, WIDTH - 2 - Array.from(where).length))}`];
}
