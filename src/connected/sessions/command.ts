import { systemClock } from '../../base/clock.ts';
import { within } from '../../base/within.ts';
import { createApi } from '../../opencode/dialects/dialects.ts';
import type { Session } from '../../opencode/schema.ts';
import { formatAge } from '../../operations/answer.ts';
import { askedLine, listAsked } from '../../operations/respond/asked.ts';
import { sessionState, type SessionState } from '../../operations/sessions/session-state.ts';
import { sessionsAtRest } from '../../operations/sessions/sessions-at-rest.ts';
import { sessionRow } from '../../operations/sessions/sessions.ts';
import type { SessionRow } from '../../operations/shapes.ts';
import { quoteName, safeToShow, sentence } from '../../base/plain-text.ts';
import { type CommandOptions, type ExitCode } from '../status/places.ts';
import { messageOf } from '../../base/errors.ts';
import { askRegistered, type Registered } from '../status/registered.ts';
import { cell, fitted, fittedPath, WIDTH, wrapped } from '../status/table.ts';

export interface SessionsOptions extends CommandOptions {
  /** Print a `SessionsReport` instead of text. */
  readonly json: boolean;
  /** For each instance, once it is known to be healthy; default 8 s. */
  readonly limitMs?: number;
}

/** What `sessions --json` prints. Fields may be added; what is here keeps its name and meaning. Text is safe to show. */
export interface SessionsReport {
  readonly format: 1;
  /** Most recently updated first; the newest of each instance. */
  readonly sessions: readonly FoundSession[];
  /** Instances whose sessions are not in the list, and why. */
  readonly missing: readonly { readonly instance: string; readonly reason: string }[];
}

export interface FoundSession extends SessionRow {
  /** More than one where processes share a home: each knows the session. */
  readonly instances: readonly string[];
}

/** Of each instance, newest first. */
const LISTED = 30;
/** In the text. */
const SHOWN = 40;
/** A cold instance answers its first session request after some 1.2 s; a hung one must not hold up the others for long. */
const INSTANCE_LIMIT_MS = 8_000;
const MAX_REASON_CHARS = 300;

/** Prints the recent sessions of every instance registered on this machine. 1 where the registry directory or an instance could not be asked. */
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
  { candidate, answer, connection, ownDirectory, dialect }: Registered,
  limitMs: number,
  signal: AbortSignal,
): Promise<Answer> {
  const instance = candidate.claims.name ?? candidate.key;
  if (answer.state !== 'healthy' || connection === undefined || ownDirectory === undefined || dialect === undefined) {
    return { instance, reason: 'reason' in answer ? answer.reason : answer.state };
  }
  const late = (): Error => new Error(`no answer within ${limitMs / 1000} s`);
  try {
    return await within({ clock: systemClock, ms: limitMs, late, signal }, async (cut) => {
      const api = createApi(dialect, connection, cut);
      const [sessions, statuses] = await Promise.all([
        api.sessions({ rootsOnly: true, limit: LISTED }),
        api.statuses(ownDirectory),
      ]);
      const nowMs = Date.now();
      const isOpencode1 = dialect === 'opencode-1';
      const resting = sessions.filter(
        // The preview shows how a session ended only by loading its directory.
        ({ id, directory }) =>
          !statuses.has(id) && (isOpencode1 ? directory === ownDirectory : dialect === 'opencode-2'),
      );
      const { asked } = await listAsked({ api }, [ownDirectory], statuses);
      const atRest = await sessionsAtRest(resting, { api, statuses: () => api.statuses(ownDirectory), nowMs });
      const stateOf = ({ id }: Session): SessionState =>
        atRest.get(id) ??
        (dialect === 'opencode-2-preview' && !statuses.has(id)
          ? { state: 'unknown' }
          : sessionState(statuses.get(id), {
              waiting: asked.filter(({ session }) => session.id === id).map(askedLine),
              nowMs,
            }));
      return {
        sessions: sessions.map((session) => ({ ...sessionRow(session, stateOf(session)), instances: [instance] })),
      };
    });
  } catch (error) {
    return { instance, reason: sentence(messageOf(error), MAX_REASON_CHARS) };
  }
}

/** So it looks to every process that does not work on it. */
const AT_REST: ReadonlySet<string> = new Set<SessionState['state']>(['idle', 'starting', 'interrupted']);

/** One row for a session. If several processes know it, its state is from the one that works on it. */
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
  if (sessions.length > SHOWN) lines.push(`and ${sessions.length - SHOWN} more; --json tells all`);
  for (const { instance, reason } of missing.slice(0, SHOWN))
    lines.push(...wrapped(`not asked: ${quoteName(instance)}: ${reason}`, ''));
  if (missing.length > SHOWN) lines.push(`and ${missing.length - SHOWN} more that were not asked`);
  return `${lines.join('\n')}\n`;
}

function sessionLines(session: FoundSession, nowMs: number): readonly string[] {
  const { title, state, updated, id, instances, directory } = session;
  const age = formatAge(nowMs - Date.parse(updated));
  const head = `${cell(state, STATE_WIDTH)} ${cell(age, AGE_WIDTH)} ${fitted(title, WIDTH - STATE_WIDTH - AGE_WIDTH - 2)}`;
  const where = `${fitted(instances.join(', '), 28)} ${id} `;
  return [head.trimEnd(), `  ${where}${fittedPath(directory, Math.max(12, WIDTH - 2 - Array.from(where).length))}`];
}
