import type { ModelName, Prompt } from '../../opencode/api.ts';
import { quoteShort, singleLine } from '../../base/plain-text.ts';
import { OperationError, quoteName } from '../answer.ts';
import { isWholeService, sessionNeeded } from '../listing/directories.ts';
import { isOver } from '../../turns/call-limit.ts';
import { type CallSpan, type Connected, limitOf, type Runtime } from '../runtime.ts';
import type { SendInput } from './send.ts';
import { findSession } from '../sessions/session-query.ts';

/** A checked agent and model. */
export type Choice = Pick<Prompt, 'agent' | 'model'>;

const MAX_LISTED = 20;

/**
 * Checks agent and model: opencode (1.18.33) never answers a message for an unknown agent, and an unknown model breaks the
 * session for later messages too.
 * @throws {OperationError} the instance has no such agent or model, or it is a whole service and no session is named
 */
export async function checkChoice(
  runtime: Pick<Runtime, 'clock'>,
  connected: Connected,
  { agent, model, session_id }: Pick<SendInput, 'agent' | 'model' | 'session_id'>,
  call: CallSpan,
): Promise<Choice> {
  if (agent === undefined && model === undefined) return {};
  if (isWholeService(connected)) {
    if (session_id === undefined) throw sessionNeeded(connected);
    connected = { ...connected, directory: (await findSession(connected, session_id)).directory };
  }
  const onceLoaded: OnceLoaded = async (list) => {
    let found = await list();
    for (const pause of COLD_PAUSES_MS) {
      if (found.length > 0 || isOver(limitOf(call), runtime.clock)) break;
      await runtime.clock.sleep(pause, call.signal);
      found = await list();
    }
    return found;
  };
  const [agentChoice, modelChoice] = await Promise.all([
    agent === undefined ? {} : checkAgent(connected, agent, onceLoaded),
    model === undefined ? {} : checkModel(connected, model, onceLoaded),
  ]);
  return { ...agentChoice, ...modelChoice };
}

/** OpenCode 2 lists none while it loads a directory; the preview took 2.3 s. */
const COLD_PAUSES_MS = [250, 500, 1_000, 2_000, 4_000];

type OnceLoaded = <T>(list: () => Promise<readonly T[]>) => Promise<readonly T[]>;

async function checkAgent(
  { api, directory, instance }: Connected,
  wanted: string,
  onceLoaded: OnceLoaded,
): Promise<Choice> {
  const agents = await onceLoaded(() => api.agents(directory));
  if (agents.includes(wanted)) return { agent: wanted };
  throw unknown(instance.name, 'agent', wanted, agents);
}

async function checkModel(
  { api, directory, instance }: Connected,
  wanted: string,
  onceLoaded: OnceLoaded,
): Promise<Choice> {
  const models = await onceLoaded(() => api.models(directory));
  const names = models.map(nameOf);
  const found = models[names.indexOf(wanted)];
  if (found !== undefined) return { model: found };
  // Similar names help more than the whole list.
  const part = wanted.split('/').at(-1)?.toLowerCase() ?? '';
  const near = names.filter((name) => name.toLowerCase().includes(part));
  throw unknown(instance.name, 'model', wanted, near.length > 0 ? near : names);
}

function nameOf({ providerID, modelID }: ModelName): string {
  return `${providerID}/${modelID}`;
}

function unknown(instance: string, what: string, wanted: string, there: readonly string[]): OperationError {
  const list = there.slice(0, MAX_LISTED).map((name) => quoteShort(name, 100));
  const more = there.length > MAX_LISTED ? ` and ${there.length - MAX_LISTED} more` : '';
  return new OperationError(
    `${quoteName(instance)} has no ${what} ${JSON.stringify(singleLine(wanted, 100))}; it has: ${list.join(', ') || 'none'}${more}.`,
  );
}
