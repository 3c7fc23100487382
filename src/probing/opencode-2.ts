import { RequestError } from '../http/exchange.ts';
import { ask, type ProbeDeps, type ProbeTask } from './probe-task.ts';

const MAX_BYTES = 64 * 1024;

/**
 * The version of an OpenCode 2, which has no health route of OpenCode 1: `error` is what came of that one. Undefined where nothing
 * says that it is one. 2.x answers `/api/info`, without a password with 401 and a JSON `_tag`; the preview (1.18.18 of its own
 * package) `/api/health`. OpenCode 1 refuses without JSON and answers both with its web page.
 */
export async function versionOfOpencode2(
  task: ProbeTask,
  deps: ProbeDeps,
  error: unknown,
): Promise<string | undefined> {
  if (!(error instanceof RequestError) || !['locked', 'malformed', 'status'].includes(error.kind)) return undefined;
  const info = await answerOf(task, deps, '/api/info');
  if (info === 'refused') return '2, behind its password';
  const version = (info as { readonly version?: unknown } | null | undefined)?.version;
  if (typeof version === 'string' && /^2\.\d{1,6}\.\d{1,6}(?:[-+][\w.+-]{1,40})?$/.test(version)) return version;
  if (error.status !== 404) return undefined;
  const health = await answerOf(task, deps, '/api/health');
  const isHealthy = (health as { readonly healthy?: unknown } | null | undefined)?.healthy === true;
  return health === 'refused' || isHealthy ? '2, a preview' : undefined;
}

/** JSON, or that OpenCode 2 refused; undefined for anything else. */
async function answerOf(task: ProbeTask, deps: ProbeDeps, path: string): Promise<unknown> {
  try {
    return await ask(task, deps, path, MAX_BYTES);
  } catch (error) {
    const isRefusal = error instanceof RequestError && error.kind === 'locked' && /"_tag"\s*:/.test(error.answer ?? '');
    return isRefusal ? 'refused' : undefined;
  }
}
