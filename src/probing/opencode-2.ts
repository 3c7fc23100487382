import { fieldsOf } from '../base/errors.ts';
import { quoteName, singleLine } from '../base/plain-text.ts';
import { RequestError } from '../http/exchange.ts';
import type { ProbeRequests } from './probe-requests.ts';
import type { Healthy, ProbeTask, Settled } from './probe-task.ts';

const MAX_VERSION_CHARS = 32;

/** The contract is that of 2.1.2; 2.2 and 2.3 changed nothing that is used here. */
const NEWEST_MINOR = 3;

/** The preview does not report a version. */
const PREVIEW = '2 (preview)';

/** The service file does not name the process that answers. */
export class WrongServiceError extends Error {}

/**
 * Identifies an OpenCode 2 by `/api/info`, or the preview by `/api/health`. Undefined if it is neither. Rejects with `RequestError` if it
 * refuses the password, and with `WrongServiceError` if the service file names another process.
 *
 * @param error from OpenCode 1's health route, if that was asked
 */
export async function identifyOpencode2(
  requests: ProbeRequests,
  { candidate }: ProbeTask,
  error?: unknown,
): Promise<Extract<Settled, { status: 'healthy' | 'unsupported' }> | undefined> {
  const { service } = candidate.claims;
  if (service?.isPreview !== true) {
    const info = await answerOf(requests, '/api/info');
    const { version, pid } = versionIn(info);
    // Other programs report a version there too, but no pid.
    if (version !== undefined && Number.isInteger(pid)) {
      if (service?.pid !== undefined && (service.pid !== pid || (service.version ?? version) !== version))
        throw new WrongServiceError(
          `the service file names process ${service.pid} of version ${service.version ?? 'unknown'}, but process ${Number(pid)} of version ${quoteName(version)} answers; run opencode service restart`,
        );
      return ifKnown(version, Number(pid));
    }
    if (service !== undefined) return unsupported(service.version ?? '2', TOO_OLD);
    // Until about 2.0.6, the version was at this route.
    const early = info === undefined ? versionIn(await answerOf(requests, '/api/status')).version : undefined;
    if (early?.startsWith('2.0.') === true) return unsupported(early, TOO_OLD);
  }
  // OpenCode 1 has the preview's route too, but also `/global/health`, which is 404 on the preview.
  const mayBePreview = service !== undefined || (error instanceof RequestError && error.status === 404);
  const health = mayBePreview ? await answerOf(requests, '/api/health') : undefined;
  if (fieldsOf(health)['healthy'] !== true) return undefined;
  return { status: 'healthy', version: service?.version ?? PREVIEW, dialect: 'opencode-2-preview', ...NOWHERE };
}

const TOO_OLD = 'it has no /api/info; update OpenCode 2';

function versionIn(answer: unknown): { readonly version?: string; readonly pid?: unknown } {
  const { version, pid } = fieldsOf(answer);
  if (typeof version !== 'string' || !/^\d{1,6}\.\d{1,6}\.\d{1,6}/.test(version)) return { pid };
  return { version: singleLine(version, MAX_VERSION_CHARS), pid };
}

/** A service works only in the directories of its sessions. */
const NOWHERE = { directory: '', worktree: '' };

export function isKnownService(version: string): boolean {
  const [major, minor] = version.split('.').map(Number);
  return major === 2 && minor !== undefined && minor <= NEWEST_MINOR;
}

function ifKnown(version: string, pid: number): Healthy | Extract<Settled, { status: 'unsupported' }> {
  if (isKnownService(version)) return { status: 'healthy', version, dialect: 'opencode-2', ...NOWHERE, pid };
  return unsupported(version, `2.0 to 2.${NEWEST_MINOR} are known; update opencode-mcp`);
}

function unsupported(version: string, why: string): Extract<Settled, { status: 'unsupported' }> {
  return {
    status: 'unsupported',
    version,
    reason: `this is OpenCode ${quoteName(version)}, which is not supported: ${why}`,
  };
}

/** Whether the body of a refusal is OpenCode 2's; OpenCode 1's is empty. */
export function isOpencode2(answer: string | undefined): boolean {
  return /"_tag"\s*:/.test(answer ?? '');
}

/**
 * Undefined if the answer is an error or not JSON. Rejects if there is no answer, if the password was withheld, or if an OpenCode 2
 * refuses it.
 */
async function answerOf(requests: ProbeRequests, path: string): Promise<unknown> {
  try {
    return await requests.identity(path);
  } catch (error) {
    if (!(error instanceof RequestError) || ['timeout', 'unreachable', 'broken', 'cancelled'].includes(error.kind))
      throw error;
    if (error.withheld !== undefined) throw error;
    if (error.kind === 'locked' && isOpencode2(error.answer)) throw error;
    return undefined;
  }
}
