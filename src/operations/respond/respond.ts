import { type AdvisedText, capitalized, inWords } from '../../model/advice.ts';
import { singleLine } from '../../base/plain-text.ts';
import { type Answer, OperationError, quoteName } from '../answer.ts';
import type { Settlement } from './approval.ts';
import { askWhileItWaits } from './ask-while-it-waits.ts';
import { approverFor, type AllAsked, type Asked, askedLine, askedLines, goneError, listAsked } from './asked.ts';
import { chosenAnswers } from './chosen-answers.ts';
import { statusesIn } from '../listing/directories.ts';
import { followOn } from '../send/following.ts';
import { begunOn } from '../send/resume.ts';
import { type Call, connect, type Connected, type Runtime } from '../runtime.ts';
import type { TurnView } from '../shapes.ts';
import { describeSettled, settle } from './settle.ts';
import { turnAnswer } from '../send/turn-view.ts';
import { reportUndone } from '../send/undone.ts';

export interface RespondInput {
  readonly instance: string;
  /** Default: the only request that waits. */
  readonly request_id?: string | undefined;
  readonly reply?: 'once' | 'always' | 'reject' | undefined;
  /** Only with a rejected permission: the agent goes on with it. */
  readonly message?: string | undefined;
  /** The labels chosen for each question. */
  readonly answers?: readonly (readonly string[])[] | undefined;
}

/** A request known only by its id is sought in the directories of this many sessions. */
const SESSIONS_SOUGHT = 100;
const MAX_DIRECTORIES = 32;

/** Settles an agent's request, checks that this took effect, and follows the turn. */
export async function respond(runtime: Runtime, input: RespondInput, call: Call): Promise<Answer<TurnView>> {
  const connected = await connect(runtime, input.instance, call);
  const asked = await find(runtime, connected, input.request_id?.trim(), call);
  const settlement = await decide(runtime, connected, asked, input, call);
  const { session } = asked;
  let isSure = true;
  const act = async (): Promise<void> => {
    await call.onBegun?.(begunOn(connected, session));
    if (settlement === 'elsewhere') return;
    const fate = await settle(runtime, connected, asked, settlement, call.signal);
    if (fate === 'gone') throw goneError(connected.instance, asked);
    isSure = fate === 'settled';
  };
  const result = await reportUndone(connected.instance.name, 'nothing was answered', () =>
    followOn(runtime, connected, session, call, { act }),
  );
  // If settled elsewhere, the answer may have begun before following did.
  const text = settlement === 'elsewhere' ? (result.wholeText ?? result.text) : result.text;
  return turnAnswer(
    connected.instance.name,
    session,
    { ...result, text },
    {
      runtime,
      settled: [describeSettled(settlement, asked, isSure)],
    },
  );
}

/** The only request that waits, or the one with that id, in any directory of the server. */
async function find(runtime: Runtime, connected: Connected, requestId: string | undefined, call: Call): Promise<Asked> {
  const { instance, directory } = connected;
  const name = quoteName(instance.name);
  if (requestId !== undefined) {
    const known = await oneOf(connected, [directory], requestId);
    const found = known ?? (await findElsewhere(runtime, connected, requestId, call));
    if (found !== undefined) return found;
  }
  const all = await waitingIn(connected, [directory]);
  const lines = askedLines(all).join('; ');
  if (requestId !== undefined)
    throw new OperationError(
      `${name} does not wait for ${JSON.stringify(singleLine(requestId, 80))} any more; nothing was answered. ${lines === '' ? 'It waits for nothing.' : `It waits for ${lines}.`}`,
    );
  const [only] = all.asked;
  const count = all.asked.length + all.left;
  if (only !== undefined && count === 1) return only;
  if (only !== undefined)
    throw new OperationError(
      ({ again, request }) =>
        `${name} waits for ${count} things; nothing was answered. ${capitalized(again)} with ${request} of one: ${lines}.`,
    );
  const next = await whereElse(runtime, connected, call);
  throw new OperationError((words) => `${name} waits for nothing; nothing was answered. ${inWords(next, words)}`);
}

async function waitingIn(connected: Connected, directories: readonly string[], requestId?: string): Promise<AllAsked> {
  return await listAsked(connected, directories, await statusesIn(connected, directories), requestId);
}

async function oneOf(connected: Connected, directories: readonly string[], id: string): Promise<Asked | undefined> {
  return (await waitingIn(connected, directories, id)).asked[0];
}

/** What to do if an instance waits for nothing: its server may wait in another directory. */
async function whereElse(runtime: Runtime, connected: Connected, call: Call): Promise<AdvisedText> {
  const { instances } = await runtime.fleet.surveyServer(connected, call.signal);
  const names = instances.filter(({ state }) => state === 'waiting').map(({ name }) => quoteName(name));
  return names.length === 0
    ? ({ status }) => `See ${status} for what it does.`
    : ({ again }) =>
        `The same opencode waits in other directories, as ${names.join(', ')}: ${again} with that instance.`;
}

/** Looks for the request in the directories where the server is known to work, then in those of its project's sessions. */
async function findElsewhere(
  runtime: Runtime,
  connected: Connected,
  requestId: string,
  call: Call,
): Promise<Asked | undefined> {
  // OpenCode 2 answers for all its directories at once.
  if (connected.dialect !== 'opencode-1') return await oneOf(connected, [''], requestId);
  const { asked } = await runtime.fleet.surveyServer(connected, call.signal);
  const near = await oneOf(connected, asked, requestId);
  if (near !== undefined) return near;
  const sessions = await connected.api.sessions({ limit: SESSIONS_SOUGHT });
  const others = new Set(sessions.map(({ directory }) => directory));
  for (const known of [connected.directory, ...asked]) others.delete(known);
  return await oneOf(connected, [...others].slice(0, MAX_DIRECTORIES), requestId);
}

/** The answer of the approver (see `Approver`); `elsewhere` if the request was answered meanwhile. @throws {OperationError} nothing is answered */
async function decide(
  runtime: Runtime,
  connected: Connected,
  asked: Asked,
  input: RespondInput,
  call: Call,
): Promise<Settlement | 'elsewhere'> {
  const { instance } = connected;
  const approver = approverFor(runtime, instance, asked);
  const name = quoteName(instance.name);
  if (approver === 'never') {
    throw new OperationError(
      `Nothing was answered: the person who runs this server lets nobody settle ${askedLine(asked)} here (approve: never). It is settled in that opencode, on ${name}.`,
    );
  }
  const own = ownSettlement(asked, input);
  // Anybody may refuse.
  const refuses = own?.kind === 'reject' || (own?.kind === 'permission' && own.reply === 'reject');
  const person = approver === 'human' || (approver === 'ask' && call.askPerson !== undefined);
  if (refuses || !person || (approver === 'ask' && own?.kind === 'answers')) return checkOwn(asked, own, approver);
  if (call.askPerson === undefined) {
    throw new OperationError(
      `Nothing was answered: the person who runs this server settles ${askedLine(asked)} (approve: human), and they cannot be asked here. They can settle it in that opencode, on ${name}, or in a client that can.`,
    );
  }
  const decided = await askWhileItWaits(runtime, connected, asked, own, { ...call, askPerson: call.askPerson });
  if (decided === 'aborted') throw goneError(instance, asked);
  return decided;
}

/** The caller's own answer, if it gave one. */
function ownSettlement({ waiting }: Asked, { reply, message, answers }: RespondInput): Settlement | undefined {
  if (waiting.kind === 'permission') {
    if (answers !== undefined)
      throw new OperationError(
        (words) =>
          `${words.answers} goes with a question, and a permission waits; give ${words.reply('once')} or ${words.reply('reject')}. Nothing was answered.`,
      );
    if (message !== undefined && reply !== 'reject')
      throw new OperationError(({ reply: said }) => `A message goes with ${said('reject')}. Nothing was answered.`);
    return reply && { kind: 'permission', reply, ...(message !== undefined && { message }) };
  }
  if (reply === 'reject') return { kind: 'reject' };
  if (reply !== undefined)
    throw new OperationError(
      (words) => `A question waits: give ${words.answers}, or ${words.reply('reject')}. Nothing was answered.`,
    );
  if (answers === undefined) return undefined;
  return { kind: 'answers', answers: chosenAnswers(waiting.request.questions, answers) };
}

function checkOwn({ waiting }: Asked, own: Settlement | undefined, approver: string): Settlement {
  if (own === undefined) {
    throw new OperationError(({ answers, reply }) => {
      const first = waiting.kind === 'permission' ? reply('once') : `${answers}, such as [["Red"]],`;
      return `respond needs ${first} or ${reply('reject')}. Nothing was answered.`;
    });
  }
  if (own.kind === 'permission' && own.reply === 'always') {
    throw new OperationError(
      (words) =>
        `A standing permission is the person's to give, in that opencode or in a client that can ask them (approve: ${approver}); ${words.reply('once')} settles this one. Nothing was answered.`,
    );
  }
  return own;
}
