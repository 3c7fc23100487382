import { lstat } from 'node:fs/promises';
import { hostname } from 'node:os';

import { singleLine } from '../../base/plain-text.ts';
import type { RunStateFile } from '../run-state.ts';
import type { Registered } from './registered.ts';
import type { LocalInstance, Wrapper } from './report.ts';

const MAX_CHARS = 300;

export async function localInstance({ candidate, answer }: Registered): Promise<LocalInstance> {
  const { claims, endpoint } = candidate;
  const passwordFile = await passwordFileOf(candidate);
  return {
    name: claims.name ?? candidate.key,
    ...(claims.id !== undefined && { id: claims.id }),
    ...(claims.hostname !== undefined && { host: claims.hostname }),
    port: Number(new URL(endpoint.url).port),
    ...(claims.localPort !== undefined && { localPort: claims.localPort }),
    ...(claims.directory !== undefined && { directory: singleLine(claims.directory, MAX_CHARS) }),
    answer,
    ...(passwordFile !== undefined && { passwordFile }),
    ...(answer.state === 'healthy' && { attach: attachCommand(endpoint.url, passwordFile) }),
  };
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
  const { relay } = state;
  const text = (value: string): string => singleLine(value, MAX_CHARS);
  return {
    id: state.id,
    name: text(state.name),
    pid: state.pid,
    running: isRunning,
    opencodePid: state.opencodePid,
    port: state.port,
    directory: text(state.directory),
    startedAt: text(state.startedAt),
    version: text(state.version),
    logFile: text(state.logFile),
    ...(state.onLan === true &&
      state.passwordFile !== undefined && { lan: { host: text(hostname()), passwordFile: text(state.passwordFile) } }),
    ...(relay !== undefined && {
      tunnel: {
        state: relay.kind,
        ...(relay.name !== undefined && { name: text(relay.name) }),
        ...(relay.port !== undefined && { port: relay.port }),
        ...(relay.reason !== undefined && { reason: text(relay.reason) }),
        ...(relay.nextAttemptAtMs !== undefined && { nextAttemptAt: isoTime(relay.nextAttemptAtMs) }),
      },
    }),
  };
}

function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}
