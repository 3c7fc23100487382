import { lstat } from 'node:fs/promises';
import { hostname } from 'node:os';

import { shellWord } from '../../base/plain-text.ts';
import { doing } from '../../fleet/view.ts';
import type { Dialect, Overview } from '../../model/instance.ts';
import type { RunStateFile } from '../run-state.ts';
import { shown } from '../shown.ts';
import type { PortAnswer, Registered } from './registered.ts';
import type { LocalInstance, Wrapper } from './report.ts';

export async function localInstance({ candidate, answer, reached, overview }: Registered): Promise<LocalInstance> {
  const { claims, endpoint } = candidate;
  const { name = candidate.key, id, hostname: host, localPort, directory } = claims;
  const passwordFile = await passwordFileOf(candidate);
  return {
    name,
    id,
    host,
    localPort,
    ...stateOf(answer, overview),
    answer,
    passwordFile,
    port: Number(new URL(endpoint.url).port),
    directory: directory === undefined ? undefined : shown(directory),
    attach:
      reached &&
      attachCommand(endpoint.url, { passwordFile, dialect: reached.dialect, isOwn: claims.service !== undefined }),
  };
}

/** The state in the same words as in `opencode-mcp list`. */
function stateOf(answer: PortAnswer, overview: Overview | undefined): Pick<LocalInstance, 'state' | 'reason'> {
  if (answer.state !== 'healthy') {
    const { state, reason } = answer;
    return {
      state: state === 'locked' || state === 'unsupported' || state === 'untrusted' ? state : 'offline',
      reason,
    };
  }
  if (overview === undefined) return { state: 'unknown' };
  const { state, reason } = doing(overview, new Set(overview.running));
  return { state, ...(reason !== undefined && { reason: shown(reason) }) };
}

async function passwordFileOf({ credential }: Registered['candidate']): Promise<string | undefined> {
  if (credential?.password.kind !== 'file') return undefined;
  const { path } = credential.password;
  return lstat(path).then(
    (stats) => (stats.isFile() ? path : undefined),
    () => undefined,
  );
}

interface AttachTarget {
  readonly passwordFile: string | undefined;
  readonly dialect: Dialect;
  /** Whether it is this user's own OpenCode 2 service, which opencode finds by itself. */
  readonly isOwn: boolean;
}

/** The shell reads the password from its file, so that no command line or history contains it. */
function attachCommand(url: string, { passwordFile, dialect, isOwn }: AttachTarget): string | undefined {
  // The preview can only reach its own service.
  if (dialect === 'opencode-2-preview') return isOwn ? 'lildax' : undefined;
  if (isOwn) return 'opencode';
  const isOpencode1 = dialect === 'opencode-1';
  const attach = `opencode ${isOpencode1 ? 'attach' : '--server'} ${url}`;
  const name = isOpencode1 ? 'OPENCODE_SERVER_PASSWORD' : 'OPENCODE_PASSWORD';
  return passwordFile === undefined ? attach : `${name}="$(cat ${shellWord(passwordFile)})" ${attach}`;
}

export function wrapper({ state, isRunning }: RunStateFile): Wrapper {
  const { id, pid, opencodePid, port, onLan, passwordFile, relay, service } = state;
  const lan = state.lan ?? (onLan === true && passwordFile ? { port, passwordFile } : undefined);
  return {
    id,
    pid,
    opencodePid,
    port,
    name: shown(state.name),
    running: isRunning,
    directory: shown(state.directory),
    startedAt: shown(state.startedAt),
    version: shown(state.version),
    logFile: shown(state.logFile),
    service: service && { url: shown(service.url), pid: service.pid },
    lan: lan && { host: shown(hostname()), passwordFile: shown(lan.passwordFile), port: lan.port },
    tunnel: relay && {
      state: relay.kind,
      name: relay.name && shown(relay.name),
      port: relay.port,
      reason: relay.reason && shown(relay.reason),
      nextAttemptAt: relay.nextAttemptAtMs === undefined ? undefined : isoTime(relay.nextAttemptAtMs),
    },
  };
}

function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}
