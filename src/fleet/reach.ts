import { type AdvisedText, capitalized, type ReaderWords } from '../model/advice.ts';
import { quoteName, quoteShort } from '../base/plain-text.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import { UnreachableError } from './contract.ts';
import type { Healthy, Settled } from '../probing/probe-task.ts';
import type { Batch, ProbeOutcome } from '../probing/prober.ts';

/** What to reach: the name for errors, the endpoints, best first, and the directory that the server must report, if known. */
export interface ReachGoal {
  readonly name: string;
  readonly records: readonly EndpointRecord[];
  readonly directory: string | undefined;
}

export interface Found {
  readonly record: EndpointRecord;
  readonly outcome: ProbeOutcome;
  readonly healthy: Healthy;
  /** Better endpoints that did not answer within a first look. */
  readonly slow: readonly { readonly record: EndpointRecord; readonly outcome: ProbeOutcome }[];
}

interface Failure {
  readonly record: EndpointRecord;
  readonly reason: string;
  readonly status: Settled['status'] | 'withheld' | 'untrusted' | 'elsewhere';
}

/** More than any instance has; each costs up to one health deadline. */
const MAX_ENDPOINTS = 8;
export const MAX_PATH_CHARS = 200;

/**
 * The first endpoint, in order, that answers for the known directory. Each gets a short probe, so that one that hangs costs little;
 * those that timed out get a second, longer one if no other answers.
 * @throws {UnreachableError} with each endpoint's failure and what to do
 */
export async function findEndpoint(goal: ReachGoal, batch: Batch<EndpointRecord>): Promise<Found> {
  const failures: Failure[] = [];
  const slow: { readonly record: EndpointRecord; readonly outcome: ProbeOutcome }[] = [];
  const records = goal.records.slice(0, MAX_ENDPOINTS);
  for (const record of records) {
    const { result } = record;
    if (result.status === 'untrusted') {
      failures.push({ record, reason: result.reason, status: 'untrusted' });
      continue;
    }
    const outcome = await look(goal, record, batch, 'look');
    if (outcome.timedOut && outcome.result.status === 'unhealthy') slow.push({ record, outcome });
    else if (isRight(outcome.result, goal)) return { record, outcome, healthy: outcome.result, slow };
    else failures.push(failureOf(record, outcome.result, goal));
  }
  for (const { record } of slow) {
    const outcome = await look(goal, record, batch, 'recheck');
    if (isRight(outcome.result, goal)) return { record, outcome, healthy: outcome.result, slow: [] };
    failures.push(failureOf(record, outcome.result, goal));
  }
  throw new UnreachableError(explain(goal, failures));
}

async function look(
  { name }: ReachGoal,
  record: EndpointRecord,
  batch: Batch<EndpointRecord>,
  urgent: 'look' | 'recheck',
): Promise<ProbeOutcome> {
  const outcome = await batch.look(record, { parts: [], urgent });
  if (outcome === undefined)
    throw new UnreachableError(`Probing ${quoteName(name)} was cancelled; nothing was done there.`);
  return outcome;
}

function isRight(result: Settled, { directory }: ReachGoal): result is Healthy {
  return result.status === 'healthy' && (directory === undefined || result.directory === directory);
}

function failureOf(record: EndpointRecord, result: Settled, { directory }: ReachGoal): Failure {
  if (result.status === 'locked' && result.isWithheld) return { record, reason: result.reason, status: 'withheld' };
  if (result.status !== 'healthy') return { record, reason: result.reason, status: result.status };
  const [known, now] = [directory ?? '', result.directory].map((path) => quoteShort(path, MAX_PATH_CHARS));
  return {
    record,
    reason: `another instance answers there now: known for ${known}, answering for ${now}`,
    status: 'elsewhere',
  };
}

function explain({ name }: ReachGoal, failures: readonly Failure[]): AdvisedText {
  if (failures.length === 0)
    return (words) =>
      `${quoteName(name)} cannot be reached: it is no longer registered anywhere; ${words.look} to see what there is.`;
  const tried = failures
    .map(({ record, reason }) => `${record.candidate.endpoint.route} ${record.candidate.endpoint.url}: ${reason}`)
    .join('; ');
  return (words) => {
    const advice = [...new Set(failures.map((failure) => adviceOn(failure, name, words)))].join(' ');
    return `${quoteName(name)} cannot be driven now. Tried ${tried}. ${advice}`;
  };
}

function adviceOn({ record, status }: Failure, name: string, words: ReaderWords): string {
  // An OpenCode 2 service makes its own password and writes it to its file.
  if (status === 'locked' && record.candidate.claims.service !== undefined)
    return `It refuses the password in its own file: run opencode service restart, then ${words.refresh}.`;
  switch (status) {
    case 'locked':
      return words.doctor(name);
    case 'withheld':
      return `No message was sent. Once that is fixed, ${words.refresh}.`;
    case 'unsupported':
      return 'Update opencode on that machine and start it again.';
    case 'unhealthy':
      return `Check that opencode still runs there, then ${words.refresh}.`;
    case 'untrusted':
      return 'It can be listed but not driven: another user could have written its registration.';
    case 'elsewhere':
      return `${capitalized(words.refresh)} and choose again.`;
    case 'healthy':
      return '';
  }
}
