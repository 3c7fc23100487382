import { messageIn } from '../../model/advice.ts';
import type { Instance, InstanceState } from '../../model/instance.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { RequestError } from '../../http/exchange.ts';
import type { Session } from '../../opencode/schema.ts';
import { sentence } from '../../base/plain-text.ts';
import { lastTurn } from '../../turns/last-turn.ts';
import type { TurnOutcome, TurnResult } from '../../turns/outcome.ts';
import { type Answer, OperationError, quoteName } from '../answer.ts';
import { askInTurn } from '../respond/ask-in-turn.ts';
import { followOn, followUntil } from './following.ts';
import { waitByReport } from './reported-turns.ts';
import { type Call, connectTo, type Connected, type Runtime } from '../runtime.ts';
import { isWholeService } from '../listing/directories.ts';
import { findSession, latestSession } from '../sessions/session-query.ts';
import { NamedProgress, resolveAll, shareOf, together } from './several.ts';
import { sessionState } from '../sessions/session-state.ts';
import type { TurnView } from '../shapes.ts';
import { turnAnswer } from './turn-view.ts';

export interface WaitInput {
  /** Default: every instance that works or waits. */
  readonly instances?: readonly string[] | undefined;
  /** Only with one instance: waits for this session. */
  readonly session_id?: string | undefined;
  readonly for: 'any' | 'all';
  readonly timeout_seconds?: number | undefined;
}

/** Sessions followed per instance, without sub-agents. */
const MAX_SESSIONS = 5;
/** Running sessions looked up per instance: each costs a request that shows whether it is a sub-agent's. */
const MAX_READ = 30;
/** Instances waited for if none is named. */
const MAX_INSTANCES = 30;
/** Turns that end at the same moment are reported together. */
const TOGETHER_MS = 50;
const ACTIVE: ReadonlySet<InstanceState> = new Set<InstanceState>(['starting', 'busy', 'retrying', 'waiting']);

/** Waits until the first instance, or all of them, are idle, need something, fail or vanish. */
export async function wait(runtime: Runtime, input: WaitInput, call: Call): Promise<Answer<TurnView>> {
  const { instances, left } = await meant(runtime, input, call);
  if (instances.length === 0) {
    return {
      data: { instance: '', outcome: 'idle', turns: [] },
      text: 'Nothing runs on any instance; there is nothing to wait for.',
    };
  }
  if (input.session_id !== undefined && instances.length !== 1)
    throw new OperationError(({ session }) => `${session} goes with one instance.`);
  const following = new LinkedAbort(call.signal);
  const progress = new NamedProgress(call.onProgress);
  const limited = limit(runtime, input, call);
  try {
    const watches = instances.map((instance) =>
      watch(runtime, instance, input.session_id, {
        ...limited,
        signal: following.signal,
        onProgress: progress.of(instance.name),
      }),
    );
    if (input.for === 'any') {
      await Promise.race([...watches.map(whenSettled), Promise.all(watches)]);
      await runtime.clock.sleep(TOGETHER_MS, call.signal);
      following.abort();
    }
    const seen = await Promise.all(watches);
    return answer(runtime, seen, left);
  } finally {
    following.end();
  }
}

/** `left`: how many more instances work. */
async function meant(
  runtime: Runtime,
  { instances }: WaitInput,
  call: Call,
): Promise<{ readonly instances: readonly Instance[]; readonly left: number }> {
  await runtime.fleet.ready();
  if (instances !== undefined) return { instances: resolveAll(runtime, instances), left: 0 };
  const snapshot = await runtime.fleet.survey(call.signal);
  // An OpenCode 2 as a whole works only in its directories, which are listed too.
  const active = snapshot.instances.filter(({ state, directory }) => ACTIVE.has(state) && directory !== undefined);
  // Waiting instances first: they end the call at once.
  const ordered = active.toSorted((one, other) => Number(other.state === 'waiting') - Number(one.state === 'waiting'));
  return { instances: ordered.slice(0, MAX_INSTANCES), left: Math.max(0, ordered.length - MAX_INSTANCES) };
}

function limit(runtime: Runtime, { timeout_seconds }: WaitInput, call: Call): Call {
  if (timeout_seconds === undefined) return call;
  const reserveMs = call.deadlineMs - followUntil(call);
  const untilMs = runtime.clock.monotonic() + timeout_seconds * 1000 + reserveMs;
  return { ...call, deadlineMs: Math.min(call.deadlineMs, untilMs) };
}

/** The turn of one session of an instance, or the answer in its place. */
type Seen = { readonly instance: string } & (
  | { readonly answer: Answer<TurnView> }
  | {
      readonly session: Pick<Session, 'id' | 'title'>;
      readonly result: TurnResult;
      readonly settled?: readonly string[];
    }
);

/** Resolves when the instance has settled, or following ends. Rejects only if there is no such session. */
async function watch(
  runtime: Runtime,
  instance: Instance,
  sessionId: string | undefined,
  call: Call,
): Promise<readonly Seen[]> {
  const { name } = instance;
  try {
    const { turns, sessionIds } = await waitByReport(runtime, instance, sessionId, call);
    if (turns !== undefined) return turns.slice(0, MAX_SESSIONS).map((turn) => ({ instance: name, ...turn }));
    const connected = await connectTo(runtime, instance, call);
    const sessions =
      sessionId !== undefined
        ? [await findSession(connected, sessionId)]
        : sessionIds.length > 0
          ? await known(connected, sessionIds)
          : await running(runtime, connected);
    if (sessions.length === 0) return await idle(connected);
    return await followAll(runtime, connected, sessions, call);
  } catch (error) {
    if (error instanceof OperationError) throw error;
    return [failure(runtime, name, error)];
  }
}

async function followAll(
  runtime: Runtime,
  connected: Connected,
  sessions: readonly Session[],
  call: Call,
): Promise<readonly Seen[]> {
  const { name } = connected.instance;
  const following = new LinkedAbort(call.signal);
  try {
    return await Promise.all(
      sessions.map(async (session): Promise<Seen> => {
        try {
          const own = { ...call, signal: following.signal };
          const { onWaiting, settled } = askInTurn(runtime, connected, session, own);
          const result = await followOn(runtime, connected, session, own, { onWaiting });
          // A session that needs something or failed ends the wait: the others are reported as they are.
          if (needsSomebody(result.outcome)) following.abort();
          return { instance: name, session, result, settled };
        } catch (error) {
          return failure(runtime, name, error);
        }
      }),
    );
  } finally {
    following.end();
  }
}

async function known({ api }: Connected, ids: readonly string[]): Promise<readonly Session[]> {
  const sessions = await Promise.all(ids.slice(0, MAX_SESSIONS).map((id) => api.session(id)));
  return sessions.filter((session) => session !== undefined);
}

/** Root sessions that run, or are about to: opencode takes a message up to a second before its status says so. */
async function running(runtime: Runtime, connected: Connected): Promise<readonly Session[]> {
  const { api, directory } = connected;
  const statuses = await api.statuses(directory);
  const sessions = await Promise.all([...statuses.keys()].slice(0, MAX_READ).map((id) => api.session(id)));
  const roots = sessions.flatMap((session) =>
    session === undefined || session.parentID !== undefined ? [] : [session],
  );
  if (roots.length > 0) return roots.slice(0, MAX_SESSIONS);
  const latest = await latestSession(connected);
  if (latest === undefined) return [];
  const { messages } = await api.messages(latest.id, { limit: 1 });
  const { state } = sessionState(undefined, { newest: messages.at(-1), nowMs: runtime.clock.now() });
  return state === 'starting' ? [latest] : [];
}

/** The last turn of the latest session. */
async function idle(connected: Connected): Promise<readonly Seen[]> {
  const { api, instance } = connected;
  const session = await latestSession(connected);
  if (session === undefined) {
    const reason = isWholeService(connected) ? 'nothing runs in any of its directories' : 'it has no session yet';
    return [{ instance: instance.name, answer: withoutTurn(instance.name, 'idle', reason) }];
  }
  return [{ instance: instance.name, session, result: await lastTurn(api, session) }];
}

function isWorking({ kind }: TurnOutcome): boolean {
  return kind === 'running' || kind === 'cancelled';
}

function needsSomebody({ kind }: TurnOutcome): boolean {
  return !isWorking({ kind } as TurnOutcome) && kind !== 'completed' && kind !== 'aborted';
}

/** Resolves once it has settled; never if following only ended. */
async function whenSettled(watched: Promise<readonly Seen[]>): Promise<void> {
  if (!isSettled(await watched)) await new Promise(() => {});
}

function isSettled(seen: readonly Seen[]): boolean {
  const outcomesOf = seen.flatMap((one) => ('result' in one ? one.result.outcome : []));
  return !outcomesOf.some(isWorking) || outcomesOf.some(needsSomebody);
}

function answer(runtime: Runtime, watched: readonly (readonly Seen[])[], left: number): Answer<TurnView> {
  const seen = watched.flat();
  const maxChars = shareOf(seen.length);
  const views = seen.map((one) => view(runtime, one, maxChars));
  const open = watched.filter((one) => !isSettled(one)).flatMap(([first]) => first?.instance ?? []);
  const sentences = [
    ...(open.length === 0
      ? []
      : [`Still under way: ${open.map((name) => quoteName(name)).join(', ')}; wait for them again.`]),
    ...(left === 0 ? [] : [`${left} more work and were not waited for; name them to wait for them.`]),
  ];
  const next = sentences.length === 0 ? undefined : sentences.join(' ');
  const { data, text } = together(views);
  return next === undefined ? { data, text } : { data: { ...data, next }, text: `${text}\n\n${next}` };
}

function view(runtime: Runtime, seen: Seen, maxChars: number): Answer<TurnView> {
  if ('answer' in seen) return seen.answer;
  const { instance, session, result, settled } = seen;
  // The whole answer of an ended turn: the call that sent the message may not have waited for it.
  const shown = isWorking(result.outcome) ? result : { ...result, text: result.wholeText ?? result.text };
  try {
    return turnAnswer(instance, session, shown, { runtime, maxChars, brief: true, settled });
  } catch (error) {
    return withoutTurn(instance, 'lost', messageIn(runtime.words, error));
  }
}

function withoutTurn(instance: string, outcome: string, why: string): Answer<TurnView> {
  const reason = sentence(why, 300);
  return { data: { instance, outcome, reason }, text: `${quoteName(instance)}: ${outcome} (${reason})` };
}

/** `unknown`: it answers, but its state cannot be read. */
function failure({ words }: Runtime, instance: string, error: unknown): Seen {
  const answers = error instanceof RequestError && ['too-large', 'malformed', 'status'].includes(error.kind);
  return { instance, answer: withoutTurn(instance, answers ? 'unknown' : 'offline', messageIn(words, error)) };
}
