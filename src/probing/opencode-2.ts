import { fieldsOf } from '../base/errors.ts';
import { quoteName, singleLine } from '../base/plain-text.ts';
import { RequestError } from '../http/exchange.ts';
import type { ProbeRequests } from './probe-requests.ts';
import type { Identified, ProbeTask } from './probe-task.ts';

const MAX_VERSION_CHARS = 32;

/** The contract is that of 2.1.2; 2.2 and 2.3 changed nothing that is used here. */
const NEWEST_MINOR = 3;

/** The preview does not report a version. */
const PREVIEW = '2 (preview)';

type ServiceFile = ProbeTask['candidate']['claims']['service'];

/**
 * Identifies an OpenCode 2, or its preview. Undefined if it is neither. Rejects if it refuses the password, or if the service
 * file names another process.
 *
 * @param error from OpenCode 1's health route, if that was asked
 */
export async function identifyOpencode2(
  requests: ProbeRequests,
  { candidate }: ProbeTask,
  error?: unknown,
): Promise<Identified | undefined> {
  const { service } = candidate.claims;
  const release = service?.isPreview === true ? undefined : await identifyRelease(requests, service);
  if (release !== undefined) return release;
  // OpenCode 1 has the preview's route too, but also `/global/health`, which is 404 on the preview.
  const mayBePreview = service !== undefined || (error instanceof RequestError && error.status === 404);
  return mayBePreview ? await identifyPreview(requests, service) : undefined;
}

async function identifyRelease(requests: ProbeRequests, service: ServiceFile): Promise<Identified | undefined> {
  const info = await answerOf(requests, '/api/info');
  const { version, pid } = versionIn(info);
  // Other programs report a version there too, but no pid.
  if (version !== undefined && pid !== undefined) {
    checkProcess(service, version, pid);
    return ifKnown(version, pid);
  }
  if (service !== undefined) return unsupported(service.version ?? '2', TOO_OLD);
  if (info !== undefined) return undefined;
  // Until about 2.0.6, the version was at this route.
  const { version: early } = versionIn(await answerOf(requests, '/api/status'));
  return early?.startsWith('2.0.') === true ? unsupported(early, TOO_OLD) : undefined;
}

/** @throws the service file names another process or version */
function checkProcess(service: ServiceFile, version: string, pid: number): void {
  if (service?.pid === undefined) return;
  if (service.pid === pid && (service.version ?? version) === version) return;
  throw new Error(
    `the service file names process ${service.pid} of version ${service.version ?? 'unknown'}, but process ${pid} of version ${quoteName(version)} answers; run opencode service restart`,
  );
}

async function identifyPreview(requests: ProbeRequests, service: ServiceFile): Promise<Identified | undefined> {
  const health = await answerOf(requests, '/api/health');
  if (fieldsOf(health)['healthy'] !== true) return undefined;
  return { status: 'healthy', version: service?.version ?? PREVIEW, dialect: 'opencode-2-preview', ...NOWHERE };
}

const TOO_OLD = 'it has no /api/info; update OpenCode 2';

function versionIn(answer: unknown): { readonly version: string | undefined; readonly pid: number | undefined } {
  const { version, pid } = fieldsOf(answer);
  const isVersion = typeof version === 'string' && /^\d{1,6}\.\d{1,6}\.\d{1,6}/.test(version);
  return {
    version: isVersion ? singleLine(version, MAX_VERSION_CHARS) : undefined,
    pid: Number.isInteger(pid) ? Number(pid) : undefined,
  };
}

/** A service works only in the directories of its sessions. */
const NOWHERE = { directory: '', worktree: '' };

export function isKnownService(version: string): boolean {
  const [major, minor] = version.split('.').map(Number);
  return major === 2 && minor !== undefined && minor <= NEWEST_MINOR;
}

function ifKnown(version: string, pid: number): Identified {
  if (isKnownService(version)) return { status: 'healthy', version, dialect: 'opencode-2', ...NOWHERE, pid };
  return unsupported(version, `2.0 to 2.${NEWEST_MINOR} are known; update opencode-mcp`);
}

function unsupported(version: string, why: string): Identified {
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
