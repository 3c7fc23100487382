import { quoteName, singleLine } from '../base/plain-text.ts';
import { RequestError } from '../http/exchange.ts';
import { ask, type Healthy, type ProbeDeps, type ProbeTask, type Settled } from './probe-task.ts';

const MAX_BYTES = 64 * 1024;
const MAX_VERSION_CHARS = 32;

/** Of OpenCode 2: the contract is that of 2.1.2, and 2.2 and 2.3 changed nothing of what is used here. */
const NEWEST_MINOR = 3;

/** The preview does not report a version. */
const PREVIEW = '2 (preview)';

/** What answers there is another process than the one that the service file names. */
export class WrongServiceError extends Error {}

/**
 * Who an OpenCode 2 is, by `/api/info`; the preview has `/api/health` and no more. Undefined where nothing says that it is one.
 * Rejects with `RequestError` where it refuses our password, and with `WrongServiceError` where the service file names another.
 *
 * @param error what came of OpenCode 1's health route, where that was asked
 */
export async function askWho(
  task: ProbeTask,
  deps: ProbeDeps,
  error?: unknown,
): Promise<Extract<Settled, { status: 'healthy' | 'unsupported' }> | undefined> {
  const { service } = task.candidate.claims;
  if (service?.isPreview !== true) {
    const info = await answerOf(task, deps, '/api/info');
    const { version, pid } = told(info);
    // Other programs tell a version there, too.
    if (version !== undefined && Number.isInteger(pid)) {
      if (service?.pid !== undefined && (service.pid !== pid || (service.version ?? version) !== version))
        throw new WrongServiceError(
          `the service file names process ${service.pid} of version ${service.version ?? 'unknown'}, and what answers there says that it is ${Number.isInteger(pid) ? `process ${Number(pid)}` : 'none'} of version ${quoteName(version)}; run opencode service restart`,
        );
      return judged(version, pid);
    }
    if (service !== undefined) return unsupported(service.version ?? '2', TOO_OLD);
    // Until about 2.0.6 this was the route.
    const early = info === undefined ? told(await answerOf(task, deps, '/api/status')).version : undefined;
    if (early?.startsWith('2.0.') === true) return unsupported(early, TOO_OLD);
  }
  // OpenCode 1 has the preview's route too, of another store.
  const mayBePreview = service !== undefined || (error instanceof RequestError && error.status === 404);
  const health = mayBePreview ? await answerOf(task, deps, '/api/health') : undefined;
  if ((health as { readonly healthy?: unknown } | null | undefined)?.healthy !== true) return undefined;
  return { status: 'healthy', version: service?.version ?? PREVIEW, dialect: 'opencode-2-preview', ...NOWHERE };
}

const TOO_OLD = 'it has no /api/info; update OpenCode 2';

function told(answer: unknown): { readonly version?: string; readonly pid?: unknown } {
  const { version, pid } = (answer ?? {}) as { readonly version?: unknown; readonly pid?: unknown };
  if (typeof version !== 'string' || !/^\d{1,6}\.\d{1,6}\.\d{1,6}/.test(version)) return { pid };
  return { version: singleLine(version, MAX_VERSION_CHARS), pid };
}

/** It works in the directories of its sessions. */
const NOWHERE = { directory: '', worktree: '' };

/** Whether that version of OpenCode 2 can be driven. */
export function isKnownService(version: string): boolean {
  const [major, minor] = version.split('.').map(Number);
  return major === 2 && minor !== undefined && minor <= NEWEST_MINOR;
}

function judged(version: string, pid: unknown): Healthy | Extract<Settled, { status: 'unsupported' }> {
  if (isKnownService(version))
    return {
      status: 'healthy',
      version,
      dialect: 'opencode-2',
      ...NOWHERE,
      ...(Number.isInteger(pid) && { pid: Number(pid) }),
    };
  return unsupported(version, `2.0 to 2.${NEWEST_MINOR} are known; update opencode-mcp`);
}

function unsupported(version: string, why: string): Extract<Settled, { status: 'unsupported' }> {
  return {
    status: 'unsupported',
    version,
    reason: `this is OpenCode ${quoteName(version)}, which is not supported: ${why}`,
  };
}

/** Whether a refusal is in OpenCode 2's words: those of OpenCode 1 are empty. */
export function isOpencode2(answer: string | undefined): boolean {
  return /"_tag"\s*:/.test(answer ?? '');
}

/** JSON; undefined for anything else. Rejects where an OpenCode 2 refuses: with 401 and JSON, which OpenCode 1 does not give. */
async function answerOf(task: ProbeTask, deps: ProbeDeps, path: string): Promise<unknown> {
  try {
    return await ask(task, deps, path, MAX_BYTES);
  } catch (error) {
    if (!(error instanceof RequestError) || ['timeout', 'unreachable', 'broken', 'cancelled'].includes(error.kind))
      throw error;
    if (error.withheld !== undefined) throw error;
    if (error.kind === 'locked' && isOpencode2(error.answer)) throw error;
    return undefined;
  }
}
