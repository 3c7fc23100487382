import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { readRunStates, type RunState } from '../../src/connected/run-state.ts';
import { announce } from '../rig/announce.ts';
import {
  type ConnectedChild,
  type ConnectedOptions,
  filesIn,
  startConnected,
} from '../rig/programs/connected-child.ts';
import { type Sshd, startSshd } from '../rig/network/sshd.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

const closers: Array<() => Promise<unknown>> = [];

/** Makes `endAll` call `close`, before the functions that were added earlier. */
export function atEnd(close: () => Promise<unknown>): void {
  closers.push(close);
}

/** Call it in `afterEach`, or in `afterAll` if the tests of a file share a wrapper or a relay. */
export async function endAll(): Promise<void> {
  for (const close of closers.splice(0).toReversed()) await close();
}

export function folder(): TempDir {
  const temp = tempDir('wrapper');
  atEnd(() => temp.close());
  return temp;
}

/** Answers the requests by which the wrapper and its readers recognize an OpenCode 1. */
const SERVER = `
const { createServer } = require('node:http');
const option = (name) => process.argv[process.argv.indexOf(name) + 1];
const { OPENCODE_SERVER_PASSWORD: password, VERSION: version = '1.18.33' } = process.env;
const wanted = password && 'Basic ' + Buffer.from('opencode:' + password).toString('base64');
const directory = process.cwd();
const answers = { '/global/health': { healthy: true, version }, '/path': { directory, worktree: directory } };
createServer(({ url, headers }, response) => {
  response.writeHead(headers.authorization === wanted ? 200 : 401, { 'content-type': 'application/json' });
  response.end(JSON.stringify(answers[url] ?? {}));
}).listen(option('--port'), option('--hostname'));
`;

/** A shell script in place of opencode, which prints no version. `$server "$@"` serves as an OpenCode 1 does. */
export async function program(text = 'exec $server "$@"'): Promise<string> {
  const { path } = folder();
  const [server, script] = [join(path, 'server.js'), join(path, 'opencode')];
  await writeFile(server, SERVER);
  const lines = ['#!/bin/sh', '[ "$1" != --version ] || exit 0', `server="${process.execPath} ${server}"`, text, ''];
  await writeFile(script, lines.join('\n'), { mode: 0o755 });
  return script;
}

/** Starts a wrapper; it may not be registered yet. */
export async function startWrapper(options: ConnectedOptions = {}): Promise<ConnectedChild> {
  const child = await startConnected(options);
  atEnd(() => child.close());
  return child;
}

/** Resolves once no file and no process of the wrapper is left. */
export async function nothingLeft(child: ConnectedChild): Promise<void> {
  let left: readonly string[] = [];
  await until(
    () => `the wrapper's files and processes to be gone; left are ${left.join(', ')}`,
    async () => (left = await child.left()).length === 0,
  );
}

/** A real sshd, and the registry directory on it. */
export interface Relay {
  readonly sshd: Sshd;
  readonly registry: string;
  /** Environment variables of a wrapper that registers on this relay. */
  readonly env: Readonly<Record<string, string>>;
}

export async function openRelay(): Promise<Relay> {
  const sshd = await startSshd();
  atEnd(() => sshd.close());
  announce(sshd);
  const registry = join(sshd.home, 'registry');
  return { sshd, registry, env: { RELAY_SSH_CMD: sshd.relaySshCommand, RELAY_REMOTE_REGISTRY_DIR: registry } };
}

export async function registeredOn({ registry }: Relay): Promise<void> {
  await until('the registration on the relay', async () =>
    (await filesIn(registry)).some((path) => path.endsWith('.json')),
  );
}

/** Resolves once no file and no session is left on the relay. */
export async function nothingOnRelay({ registry, sshd }: Relay): Promise<void> {
  await until('no file to be left on the relay', async () => (await filesIn(registry)).length === 0);
  await until('no session to be left', async () => (await sshd.remoteProcesses()).length === 0);
}

/** Reads the state file of a running wrapper. */
export async function stateOf(child: ConnectedChild): Promise<RunState> {
  const states = await readRunStates(join(child.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp'));
  const own = states.find(({ state }) => state.pid === child.pid);
  if (own === undefined) throw new Error(`Expected a state file of process ${child.pid}, got none`);
  return own.state;
}

/** Resolves with the pid of the ssh that holds the connection, once it differs from `oldPid`. */
export function sshOf(child: ConnectedChild, oldPid?: number): Promise<number> {
  return until('a connection to the relay', async () => {
    const { relay, sshPid } = await stateOf(child);
    return relay?.kind === 'connected' && sshPid !== oldPid ? sshPid : undefined;
  });
}
