import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { announce } from '../../rig/announce.ts';
import { type ConnectedChild, type ConnectedOptions, filesIn, startConnected } from '../../rig/connected-child.ts';
import { type McpChild, startMcpChild } from '../../rig/mcp-child.ts';
import { type Sshd, startSshd } from '../../rig/sshd.ts';
import { until } from '../../rig/wait.ts';

/** A real sshd, and the registry directory on it. */
export interface Relay {
  readonly sshd: Sshd;
  /** On the relay. */
  readonly registry: string;
  /** The wrapper's environment for this relay. */
  readonly env: Readonly<Record<string, string>>;
}

/** The fields of a state file that the tests read. */
export interface WrapperState {
  readonly pid: number;
  readonly opencodePid: number;
  readonly sshPid?: number;
  readonly relay?: { readonly kind: string; readonly reason?: string; readonly port?: number };
}

const closers: Array<() => Promise<unknown>> = [];

/** Calls `close` after the test; the last one first. */
export function atEnd(close: () => Promise<unknown>): void {
  closers.push(close);
}

/** For `afterEach`. */
export async function endAll(): Promise<void> {
  for (const close of closers.splice(0).toReversed()) await close();
}

export async function openRelay(): Promise<Relay> {
  const sshd = await startSshd();
  atEnd(() => sshd.close());
  announce(sshd);
  const registry = join(sshd.home, 'registry');
  return { sshd, registry, env: { RELAY_SSH_CMD: sshd.relaySshCommand, RELAY_REMOTE_REGISTRY_DIR: registry } };
}

/** Starts a wrapper with that relay. Resolves when its opencode answers. */
export async function connected(relay: Relay, options: ConnectedOptions = {}): Promise<ConnectedChild> {
  const child = await startConnected({ ...options, env: { ...relay.env, ...options.env } });
  atEnd(() => child.close());
  await child.registered();
  return child;
}

/** A client without a short request timeout, since a cold opencode on a busy machine is slow. */
export const CLAUDE_CODE = { name: 'claude-code', version: '2.1.329' };

/** An MCP server on the relay. */
export async function serverOn(relay: Relay): Promise<McpChild> {
  const server = await startMcpChild({
    clientInfo: CLAUDE_CODE,
    args: ['--registry-dir', relay.registry, '--health-timeout-ms', '15000'],
    env: { HOME: relay.sshd.home },
  });
  atEnd(() => server.close());
  return server;
}

export async function stateOf(child: ConnectedChild): Promise<WrapperState | undefined> {
  for (const path of await filesIn(join(child.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp', 'connected'))) {
    const state: WrapperState = JSON.parse((await readFile(path, 'utf8').catch(() => '')) || '{}');
    if (state.pid === child.pid) return state;
  }
  return undefined;
}

/** Resolves with the pid of the ssh that holds the connection, once it differs from `not`. */
export function sshOf(child: ConnectedChild, not?: number, limitMs?: number): Promise<number> {
  return until(
    'a connection to the relay',
    async () => {
      const state = await stateOf(child);
      return state?.relay?.kind === 'connected' && state.sshPid !== not ? state.sshPid : undefined;
    },
    limitMs,
  );
}
