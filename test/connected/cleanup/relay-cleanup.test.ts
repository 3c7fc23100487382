import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';

import { runCleanup } from '../../../src/connected/cleanup/command.ts';
import { CONNECTED_SCRIPT } from '../../rig/programs/connected-child.ts';
import { freePort } from '../../rig/ports.ts';
import { installConnected, needSshd, signalProcess } from '../../rig/network/sshd.ts';
import { until } from '../../rig/wait.ts';
import { openRelayStage } from '../relay/relay-stage.ts';
import { HOUR_MS, openRemains, outputOf, type Remains } from './remains.ts';

const never = new AbortController().signal;

/** Runs the relay's command in a shell of this machine. */
const SSH_HERE = [
  'sh',
  '-c',
  `for word; do :; done; eval "'${process.execPath}' '${CONNECTED_SCRIPT}' \${word#* }"`,
  'sh',
];

let here: Remains;
let there: Remains;

beforeEach(async () => {
  [here, there] = await Promise.all([openRemains(), openRemains()]);
});

interface CleanupCase {
  /** Default: `SSH_HERE`. */
  readonly relaySshCommand?: readonly string[] | undefined;
  readonly dryRun?: boolean;
  /** Called before the list is printed and anything is removed. */
  readonly onListed?: () => void;
}

function cleanup(options: CleanupCase = {}): ReturnType<typeof outputOf> {
  const { relaySshCommand = SSH_HERE, dryRun = false, onListed = () => {} } = options;
  const relayRegistryDir = { path: there.registry, explicit: true };
  const settings = here.places({ relayRegistryDir, relaySshCommand });
  let isListed = false;
  return outputOf(({ out, signal }) => {
    const print = (more: string): void => {
      if (!isListed) onListed();
      isListed = true;
      out(more);
    };
    return runCleanup({ settings, dryRun, out: print, signal });
  });
}

describe('cleanup of a relay', () => {
  it('removes dead registrations through a real ssh, and leaves a held one until all processes of its connection are killed', async (context) => {
    needSshd(context);
    const stage = await openRelayStage();
    await installConnected(stage.sshd);
    const relaySshCommand = stage.sshd.command;
    const link = stage.link({ registryDir: { path: there.registry, explicit: true } });
    await link.connectFirst(never);
    await there.register('dead', { claim: 'dead', password: true, id: 'id-dead' });
    await there.password('stale', { ageMs: 2 * HOUR_MS });
    const before = await there.files();
    const dryOutput = await cleanup({ relaySshCommand, dryRun: true });
    expect(dryOutput.text).toContain(`relay: registration ${there.registry}/dead.json`);
    expect(await there.files()).toEqual(before);
    const { text, code } = await cleanup({ relaySshCommand });
    expect(text).toContain(`Removed relay: registration ${there.registry}/dead.json`);
    expect(code).toBe(0);
    const held = ['.credentials/id-one', '.laptop-app.claim', 'laptop-app.json'];
    expect(await there.files()).toEqual(held);
    const response = await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
    expect(response.status).toBe(200);

    const processes = await stage.sshd.remoteProcesses();
    // Stop all before killing any: a running one would clean up after a killed one.
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const { pid } of processes) signalProcess(pid, signal);
    await stage.sshd.killSessions();
    await link.reaches('waiting');
    await until('the session to end', async () => (await stage.sshd.sessionProcesses()).length === 0);
    expect(await there.files()).toEqual(held);
    expect((await cleanup({ relaySshCommand })).code).toBe(0);
    expect(await there.files()).toEqual([]);
  });

  it('removes a registration whose wrapper here has ended, and keeps the proof for one that could not be removed', async () => {
    const states = [await here.state({ id: 'id-gone' }), await here.state({ id: 'id-app' })];
    await there.register('gone', { id: 'id-gone' });
    await there.register('app', { id: 'id-app' });
    const { text, code } = await cleanup({
      onListed: () => writeFileSync(join(there.registry, '.app.claim'), `id-new ${process.pid} 1 ${hostname()}\n`),
    });
    expect(text).toMatch(/Left relay: registration .*: it has been claimed since/);
    expect(text).toMatch(/Left state file .*: kept as proof/);
    expect(await there.files()).toEqual(['.app.claim', 'app.json']);
    expect([code, ...states.map((path) => existsSync(path))]).toEqual([1, false, true]);
  });

  it('cleans up this machine if the relay is unreachable, and reports the failure', async () => {
    await here.register('app', { claim: 'dead' });
    const relaySshCommand = ['sh', '-c', 'echo "Connection refused" >&2; exit 255', 'sh'];
    const { text, code } = await cleanup({ relaySshCommand });
    expect(text).toMatch(/The relay could not be read, and nothing is removed there: .*Connection refused/);
    expect(code).toBe(1);
    expect(await here.files()).toEqual([]);
  });
});

describe('cleanup of tunnels', () => {
  const local = (): ReturnType<typeof outputOf> =>
    outputOf((options) => runCleanup({ settings: here.places(), dryRun: false, ...options }));

  /** A process with the words of a tunnel in its command line. */
  async function tunnel(port: number, options: { readonly uid?: number } = {}): Promise<ChildProcess> {
    const words = ['-c', 'read -r line', 'opencode-connected', '-R', `0:127.0.0.1:${port}`, 'x'];
    const child = spawn('sh', words, { stdio: ['pipe', 'ignore', 'ignore'], ...options });
    onTestFinished(() => void child.kill('SIGKILL'));
    await new Promise((resolve) => child.once('spawn', resolve));
    return child;
  }

  it('ends the tunnel of a wrapper that has ended', async (context) => {
    needSshd(context);
    const stage = await openRelayStage();
    const link = stage.link();
    await link.connectFirst(never);
    const { port } = stage.opencode;
    const { pid } = link;
    await here.state({ id: 'gone', port, sshPid: pid });
    const { text, code } = await local();
    expect(text).toContain(`Removed tunnel ssh with pid ${pid}, the tunnel to port ${port}`);
    expect(code).toBe(0);
    await link.reaches('waiting');
    await stage.nothingLeft();
  });

  it("leaves a running wrapper's tunnel, another port's, and other processes", async () => {
    const port = await freePort();
    const child = await tunnel(port);
    const { child: sleeper, pid, started } = await here.process();
    await here.state({ id: 'runs', pid, started, port, sshPid: child.pid });
    await here.state({ id: 'same-ssh', port, sshPid: child.pid });
    await here.state({ id: 'no-tunnel', port, sshPid: sleeper.pid });
    expect((await local()).text).not.toContain('tunnel ssh');
    await here.state({ id: 'other-port', port: port + 1, sshPid: child.pid });
    await here.state({ id: 'runs', pid: 1, started: '-1', port: port + 1 });
    expect((await local()).text).not.toContain('tunnel ssh');
    expect([hasEnded(child), hasEnded(sleeper)]).toEqual([false, false]);
  });

  it("leaves another user's process with such words in its command line", async (context) => {
    if (process.getuid?.() !== 0) context.skip(true, 'needs root');
    const port = await freePort();
    const child = await tunnel(port, { uid: 65_534 });
    await here.state({ id: 'gone', port, sshPid: child.pid });
    expect((await local()).text).not.toContain('tunnel ssh');
    expect(hasEnded(child)).toBe(false);
  });
});

/** ssh exits on SIGTERM. */
function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}
