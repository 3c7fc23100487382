import { lstat } from 'node:fs/promises';
import { hostname } from 'node:os';

import { singleLine } from '../../base/plain-text.ts';
import type { RunStateFile } from '../run-state.ts';
import type { Registered } from './registered.ts';
import type { LocalInstance, Wrapper } from './report.ts';

const MAX_CHARS = 300;

export async function localInstance({ candidate, answer }: Registered): Promise<LocalInstance> {
  const { claims, endpoint } = candidate;
  const { name = candidate.key, id, hostname: host, localPort, directory } = claims;
  const passwordFile = await passwordFileOf(candidate);
  return {
    name,
    id,
    host,
    localPort,
    answer,
    passwordFile,
    port: Number(new URL(endpoint.url).port),
    directory: directory === undefined ? undefined : text(directory),
    attach: answer.state === 'healthy' ? attachCommand(endpoint.url, passwordFile) : undefined,
  };
}

function text(value: string): string {
  return singleLine(value, MAX_CHARS);
}

async function passwordFileOf({ credential }: Registered['candidate']): Promise<string | undefined> {
  if (credential?.password.kind !== 'file') return undefined;
  const { path } = credential.password;
  return lstat(path).then(
    (stats) => (stats.isFile() ? path : undefined),
    () => undefined,
  );
}

/** The file's content is read by the shell of whoever runs it: no password stands in a command line or in a history. */
export function attachCommand(url: string, passwordFile: string | undefined): string {
  const attach = `opencode attach ${url}`;
  return passwordFile === undefined ? attach : `OPENCODE_SERVER_PASSWORD="$(cat ${quoted(passwordFile)})" ${attach}`;
}

function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;
}

export function wrapper({ state, isRunning }: RunStateFile): Wrapper {
  const { id, pid, opencodePid, port, onLan, passwordFile, relay } = state;
  return {
    id,
    pid,
    opencodePid,
    port,
    name: text(state.name),
    running: isRunning,
    directory: text(state.directory),
    startedAt: text(state.startedAt),
    version: text(state.version),
    logFile: text(state.logFile),
    lan: onLan === true && passwordFile ? { host: text(hostname()), passwordFile: text(passwordFile) } : undefined,
    tunnel: relay && {
      state: relay.kind,
      name: relay.name && text(relay.name),
      port: relay.port,
      reason: relay.reason && text(relay.reason),
      nextAttemptAt: relay.nextAttemptAtMs === undefined ? undefined : isoTime(relay.nextAttemptAtMs),
    },
  };
}

function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}
