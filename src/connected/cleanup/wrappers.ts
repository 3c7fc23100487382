import { constants } from 'node:fs';
import { access, lstat, realpath, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorCode } from '../../base/errors.ts';
import { endsWithin, familyOf, identifyProcess, isAlive, ps, signalIfThere } from '../process-table.ts';
import { readRunStates, type RunStateFile } from '../run-state.ts';
import { shown } from '../shown.ts';
import type { Finding } from './finding.ts';

/** ssh closes its connection within a round trip. */
const TERM_LIMIT_MS = 2_000;

export interface WrapperEvidence {
  readonly states: readonly RunStateFile[];
  /** With symbolic links resolved; undefined if it could not be read. */
  readonly registryDir: string | undefined;
}

export async function judgeWrappers({ states, registryDir }: WrapperEvidence): Promise<readonly Finding[]> {
  const running = new Set(states.filter(({ isRunning }) => isRunning).map(({ state }) => state.sshPid));
  const dead = states.filter(({ isRunning }) => !isRunning);
  const findings = await Promise.all(
    dead.map(async (file) => {
      const { sshPid } = file.state;
      const tunnel = sshPid === undefined || running.has(sshPid) ? [] : await judgeTunnel(file, sshPid);
      return [...tunnel, await judgeState(file, registryDir)];
    }),
  );
  return findings.flat();
}

async function judgeState(file: RunStateFile, registryDir: string | undefined): Promise<Finding> {
  const { state, path } = file;
  const subject = shown(path);
  const finding = { where: 'here', what: 'state file', subject, id: state.id } as const;
  const ended = `its opencode-connected (pid ${state.pid}) has ended`;
  if (await opencodeRuns(file)) {
    return {
      ...finding,
      reason: `${ended}, but its opencode (pid ${state.opencodePid}) still runs on port ${state.port}`,
    };
  }
  if (!(await isWithin(state.registryFile, registryDir)) && (await exists(state.registryFile))) {
    if (registryDir === undefined)
      return { ...finding, reason: `${ended}, but its registry directory could not be read` };
    const directory = shown(dirname(state.registryFile));
    return {
      ...finding,
      reason: `${ended}, but its registration is in another directory: run again with RELAY_REGISTRY_DIR=${directory}`,
    };
  }
  return { ...finding, reason: ended, action: { kind: 'state', file } };
}

async function judgeTunnel(file: RunStateFile, pid: number): Promise<readonly Finding[]> {
  if (!(await isTunnelOf(file, pid))) return [];
  const reason = `its opencode-connected (pid ${file.state.pid}) has ended`;
  const subject = `ssh with pid ${pid}, the tunnel to port ${file.state.port}`;
  return [{ where: 'here', what: 'tunnel', subject, reason, id: file.state.id, action: { kind: 'tunnel', file, pid } }];
}

/** Removes the state file unless another wrapper has written it since. Resolves with the reason if the file stays. */
export async function removeState(file: RunStateFile, stateDir: string): Promise<string | undefined> {
  const now = await findAgain(file, stateDir);
  if (now === 'gone') return undefined;
  if (now === undefined) return 'it has been written since';
  if (await opencodeRuns(file)) return `its opencode (pid ${file.state.opencodePid}) runs`;
  const stats = await lstat(file.path);
  if (!stats.isFile() || stats.uid !== process.geteuid?.()) return 'it is not a file of this user';
  try {
    await unlink(file.path);
    return undefined;
  } catch (error) {
    return `it cannot be removed: ${errorCode(error) ?? String(error)}`;
  }
}

/** Ends the tunnel if it is still the same process. Resolves with the reason if it goes on. */
export async function endTunnel(file: RunStateFile, pid: number, stateDir: string): Promise<string | undefined> {
  const identity = await identifyProcess(pid);
  if (identity === undefined) return undefined;
  const now = await findAgain(file, stateDir);
  if (now === undefined || now === 'gone') return 'its state file has changed';
  if (!(await isTunnelOf(file, pid)) || !(await isAlive(identity))) return 'it is another process now';
  const family = await familyOf(pid);
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    for (const member of family) signalIfThere(member, signal);
    if (await endsWithin(identity, TERM_LIMIT_MS)) return undefined;
  }
  return 'it does not end';
}

/** The file as it is now; undefined if another wrapper has written it since, or its wrapper runs. */
async function findAgain(file: RunStateFile, stateDir: string): Promise<RunStateFile | 'gone' | undefined> {
  const now = (await readRunStates(stateDir)).find(({ path }) => path === file.path);
  if (now === undefined) return (await exists(file.path)) ? undefined : 'gone';
  const isSame = !now.isRunning && now.state.pid === file.state.pid && now.state.startedAt === file.state.startedAt;
  return isSame ? now : undefined;
}

function opencodeRuns({ state }: RunStateFile): Promise<boolean> {
  return isAlive({ pid: state.opencodePid, started: state.opencodeStarted });
}

/** Whether the process is this user's and forwards that wrapper's port; pids are reused. */
async function isTunnelOf({ state }: RunStateFile, pid: number): Promise<boolean> {
  const line = (await ps(['-ww', '-o', 'uid=,args=', '-p', String(pid)])) ?? '';
  const [uid] = line.trim().split(/\s+/, 1);
  return (
    uid === String(process.geteuid?.()) &&
    line.includes(` -R 0:127.0.0.1:${state.port} `) &&
    line.includes('opencode-connected')
  );
}

async function isWithin(path: string, directory: string | undefined): Promise<boolean> {
  return directory !== undefined && (await realpath(dirname(path)).catch(() => undefined)) === directory;
}

async function exists(path: string): Promise<boolean> {
  return access(path, constants.F_OK).then(
    () => true,
    (error: unknown) => !['ENOENT', 'ENOTDIR'].includes(errorCode(error) ?? ''),
  );
}
