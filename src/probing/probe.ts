import { RequestError } from '../http/exchange.ts';
import { messageOf } from '../base/errors.ts';
import { quoted, quoteShort, sentence } from '../base/plain-text.ts';
import { said, wordsOf } from '../opencode/said.ts';
import { healthOf, pathOf } from './answers.ts';
import { askOverview } from './ask-overview.ts';
import { askService } from './ask-service.ts';
import { identifyOpencode2, isOpencode2 } from './opencode-2.ts';
import { ProbeRequests } from './probe-requests.ts';
import type { Healthy, Identified, Look, ProbeDeps, ProbeTask, Settled } from './probe-task.ts';
import { unsupportedReason } from './supported-version.ts';

const MAX_REASON_CHARS = 400;
const MAX_REASON_PATH_CHARS = 150;
const MAX_CHALLENGE_CHARS = 100;
/** Enough of a web page to recognise it. */
const MAX_PAGE_CHARS = 4096;
const MAX_WORDS_CHARS = 120;
const MARKUP = /<(style|script)\b[^]*?<\/\1>|<[^>]*>/gi;

/** Asks one endpoint for its identity, then for its work. Never rejects. */
export async function probe(task: ProbeTask, deps: ProbeDeps): Promise<Look> {
  if (task.lock !== undefined) return settled({ status: 'locked', reason: task.lock });
  const requests = new ProbeRequests(task, deps);
  const startMs = deps.clock.monotonic();
  let latencyMs: number | undefined;
  try {
    const result =
      task.identity ??
      (await identify({ requests, task, deps }, () => (latencyMs ??= deps.clock.monotonic() - startMs)));
    if (result.status !== 'healthy') return settled(result, latencyMs);
    const overview =
      result.dialect === 'opencode-1'
        ? await askOverview(requests, task, result.directory)
        : await askService(requests, task, result.dialect);
    return { result, ...overview, ...(latencyMs === undefined ? {} : { latencyMs }) };
  } catch (error) {
    return failed(error, { task, timedOut: requests.isTimeout(error), latencyMs });
  }
}

interface Identifying {
  readonly requests: ProbeRequests;
  readonly task: ProbeTask;
  readonly deps: ProbeDeps;
}

/** Calls `answered` at the first answer. */
async function identify(identifying: Identifying, answered: () => void): Promise<Identified> {
  const { before, version, candidate } = identifying.task;
  const knownAs2 = candidate.claims.service !== undefined || (before !== undefined && before.dialect !== 'opencode-1');
  if (knownAs2 && before !== undefined && version !== undefined) return before;
  const found = version ?? (await askVersion(identifying, knownAs2));
  if (version === undefined) answered();
  if (typeof found !== 'string') return found;
  const unsupported = unsupportedReason(found);
  if (unsupported !== undefined) return { status: 'unsupported', version: found, reason: unsupported };
  const identity = await askPaths(identifying, found);
  answered();
  return identity;
}

/** Resolves to the version of an OpenCode 1, or else to the identity found. */
async function askVersion({ requests, task }: Identifying, knownAs2: boolean): Promise<string | Identified> {
  if (knownAs2) {
    const found = await identifyOpencode2(requests, task);
    if (found !== undefined) return found;
  }
  let answer: unknown;
  try {
    answer = await requests.identity('/global/health');
  } catch (error) {
    if (!(error instanceof RequestError) || !['locked', 'malformed', 'status'].includes(error.kind)) throw error;
    const found = await identifyOpencode2(requests, task, error);
    if (found === undefined) throw error;
    return found;
  }
  const health = healthOf(answer);
  if (health === undefined) throw malformed(task, '/global/health', 'expected {"healthy":true,"version":…}');
  if (!health.healthy) throw new Unfit(`${task.connection.endpoint.url} reports that it is not healthy`);
  return health.version;
}

async function askPaths({ requests, task, deps }: Identifying, version: string): Promise<Healthy> {
  const paths = pathOf(await requests.identity('/path'));
  if (paths === undefined) throw malformed(task, '/path', 'expected {"directory","worktree"} with absolute paths');
  const { candidate, signal } = task;
  const claimed = candidate.claims.directory;
  if (claimed !== undefined) {
    const sameMachine = candidate.endpoint.route === 'loopback';
    if (!(await deps.sameDirectory(claimed, paths.directory, { sameMachine, signal }))) {
      const [registered, answering] = [claimed, paths.directory].map((path) => quoteShort(path, MAX_REASON_PATH_CHARS));
      throw new Unfit(`another instance answers here: registered for ${registered}, answering for ${answering}`);
    }
  }
  return { status: 'healthy', version, dialect: 'opencode-1', ...paths };
}

/** Something answered, but not the expected opencode. */
class Unfit extends Error {}

function malformed(task: ProbeTask, path: string, expected: string): Unfit {
  return new Unfit(`GET ${task.connection.endpoint.url}${path}: not the answer of an opencode server; ${expected}`);
}

function settled(result: Settled, latencyMs?: number): Look {
  return { result, learnt: {}, missing: [], timedOut: false, ...(latencyMs === undefined ? {} : { latencyMs }) };
}

function failed(
  error: unknown,
  {
    task,
    timedOut,
    latencyMs,
  }: { readonly task: ProbeTask; readonly timedOut: boolean; readonly latencyMs: number | undefined },
): Look {
  if (error instanceof RequestError && error.withheld !== undefined)
    return settled({ status: 'locked', reason: error.withheld, isWithheld: true }, latencyMs);
  if (error instanceof RequestError && error.kind === 'locked') {
    return settled({ status: 'locked', reason: refusal(task, error) }, latencyMs);
  }
  const reason = timedOut
    ? `${task.connection.endpoint.url} ${latencyMs === undefined ? 'gave no answer' : 'stopped answering'} within ${(task.waitedMs ?? 0) + task.limitMs} ms`
    : messageOf(error) + saidIn(error);
  const { hint } = task.candidate;
  const explained = hint === undefined ? reason : `${reason}; ${hint}`;
  return {
    ...settled({ status: 'unhealthy', reason: sentence(explained, MAX_REASON_CHARS) }, latencyMs),
    timedOut,
    ...(isNotNow(error) ? { notNow: true } : {}),
  };
}

/** opencode's own words for an error (a configuration file that does not parse, say), or the beginning of what a proxy answers. */
function saidIn(error: unknown): string {
  if (!(error instanceof RequestError) || error.answer === undefined) return '';
  try {
    const words = wordsOf(JSON.parse(error.answer));
    return words === undefined ? '' : said(words);
  } catch {
    const text = error.answer.slice(0, MAX_PAGE_CHARS).trim();
    // Truncated JSON may quote a configuration file with its API keys.
    if (/^[{[]/.test(text)) return '';
    const words = text.replaceAll(MARKUP, ' ').replaceAll(/\s+/g, ' ').trim();
    const what = text.startsWith('<') ? '; it answers with a web page, as a proxy does' : '';
    return words === '' ? what : what + said(words.slice(0, MAX_WORDS_CHARS));
  }
}

/**
 * Whether the failure may be temporary: a node service cannot identify the caller or has not found the instance yet, or a server is
 * overloaded or starting.
 */
function isNotNow(error: unknown): boolean {
  if (!(error instanceof RequestError) || error.status === undefined) return false;
  return error.kind === 'unreachable' || error.status >= 500 || error.status === 429;
}

/** The same in all supported versions. */
const OWN_CHALLENGE = /^Basic realm="Secure Area"/i;

function refusal(task: ProbeTask, { answer, challenge }: RequestError): string {
  const { connection, credentialProblem } = task;
  const why =
    connection.credential !== undefined
      ? 'it refused the password that was sent'
      : (credentialProblem ?? 'it asks for a password and none is known for it');
  const who = isOpencode2(answer) ? 'this is an OpenCode 2; ' : '';
  const whose =
    challenge === undefined || OWN_CHALLENGE.test(challenge)
      ? ''
      : `; it is not opencode that asks, but something in front of it: ${quoted(challenge, MAX_CHALLENGE_CHARS)}`;
  return sentence(`${connection.endpoint.url} answered HTTP 401: ${who}${why}${whose}`, MAX_REASON_CHARS);
}
