import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { runCleanup } from '../../../src/connected/cleanup/command.ts';
import { identifyProcess } from '../../../src/connected/process-table.ts';
import { REMOTE_COMMAND } from '../../../src/connected/relay/remote-program.ts';
import { announce } from '../../rig/announce.ts';
import { freePort } from '../../rig/ports.ts';
import { descendantsOf, installConnected, needSshd, signalProcess, startSshd, type Sshd } from '../../rig/sshd.ts';
import { until } from '../../rig/wait.ts';
import { openRelayStage, type RelayStage } from '../relay/relay-stage.ts';
import { HOUR_MS, openRemains, type Remains } from './remains.ts';

const never = new AbortController().signal;

/** @param listed called when the list is out, before the first removal */
async function cleanup(
  here: Remains,
  relay: { sshd: Sshd; registry: string },
  dryRun = false,
  listed = (): void => {},
): Promise<Result> {
  let text = '';
  const out = (more: string): void => {
    if (text === '') listed();
    text += more;
  };
  const settings = here.places({
    relaySshCommand: relay.sshd.command,
    relayRegistryDir: { path: relay.registry, explicit: true },
  });
  const code = await runCleanup({ settings, dryRun, out, signal: never });
  return { text, code };
}

interface Result {
  readonly text: string;
  readonly code: number;
}

describe('cleanup of a relay', () => {
  let stage: RelayStage;
  let here: Remains;
  let there: Remains;

  beforeEach(async (context) => {
    needSshd(context);
    stage = await openRelayStage();
    await installConnected(stage.sshd);
    [here, there] = await Promise.all([openRemains(), openRemains()]);
  });
  afterEach(async () => {
    await stage?.[Symbol.asyncDispose]();
    await here?.[Symbol.asyncDispose]();
    await there?.[Symbol.asyncDispose]();
  });

  it('removes dead registrations and leaves those that a connection holds', async () => {
    const link = stage.link({ registryDir: { path: there.registry, explicit: true } });
    await link.connectFirst(never);
    await there.register('dead', { claim: 'dead', password: true, id: 'id-dead' });
    await there.password('stale', { ageMs: 2 * HOUR_MS });
    const before = await there.files();
    const dry = await cleanup(here, { sshd: stage.sshd, registry: there.registry }, true);
    expect(dry.text).toContain(`relay: registration ${there.registry}/dead.json`);
    expect(await there.files()).toEqual(before);
    const { text, code } = await cleanup(here, { sshd: stage.sshd, registry: there.registry });
    expect(text).toContain(`Removed relay: registration ${there.registry}/dead.json`);
    expect(code).toBe(0);
    expect(await there.files()).toEqual(['.credentials/id-one', '.laptop-app.claim', 'laptop-app.json']);
    const response = await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
    expect(response.status).toBe(200);
  });

  it('removes the remains of a connection whose processes were all killed', async () => {
    const link = stage.link({ registryDir: { path: there.registry, explicit: true } });
    await link.connectFirst(never);
    const processes = await stage.sshd.remoteProcesses();
    // All stand still first, or one would tidy up after another.
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const { pid } of processes) signalProcess(pid, signal);
    await stage.sshd.killSessions();
    await link.reaches('waiting');
    await until('the session to end', async () => (await stage.sshd.sessionProcesses()).length === 0);
    expect(await there.files()).toContain('laptop-app.json');
    const { code } = await cleanup(here, { sshd: stage.sshd, registry: there.registry });
    expect(code).toBe(0);
    expect(await there.files()).toEqual([]);
  });

  it('leaves a registration whose wrapper here will reconnect', async () => {
    const { pid = 0 } = await here.process();
    const started = (await identifyProcess(pid))?.started;
    await here.state({ id: 'id-app', pid, ...(started !== undefined && { started }) });
    await there.register('app', { claim: 'dead', id: 'id-app', password: true });
    const before = await there.files();
    const { text } = await cleanup(here, { sshd: stage.sshd, registry: there.registry });
    expect(text).toContain('Nothing is provably dead.');
    expect(await there.files()).toEqual(before);
  });

  it('leaves registrations that have no claim or that listen, unless their wrapper ended here', async () => {
    await here.state({ id: 'id-app' });
    await there.register('ours', { id: 'id-app' });
    await there.register('plain');
    await there.register('answering', { port: stage.sshd.port, claim: 'dead' });
    const { text } = await cleanup(here, { sshd: stage.sshd, registry: there.registry });
    expect(text).toMatch(/relay: registration .*plain\.json\n {4}its writer is unknown/);
    expect(text).toContain(`but something listens on its port ${stage.sshd.port}`);
    expect(await there.files()).toEqual(['.answering.claim', 'answering.json', 'plain.json']);
  });

  it('keeps the state file that proves a registration dead which could not be removed there', async () => {
    const state = await here.state({ id: 'id-app' });
    await there.register('app', { id: 'id-app' });
    const { text, code } = await cleanup(here, { sshd: stage.sshd, registry: there.registry }, false, () =>
      writeFileSync(join(there.registry, '.app.claim'), `id-new ${process.pid} 1 ${hostname()}\n`),
    );
    expect(text).toMatch(/Left relay: registration .*: it has been claimed since/);
    expect(text).toMatch(/Left state file .*: kept as proof/);
    expect([code, existsSync(state)]).toEqual([1, true]);
  });

  it('cleans up here if the relay is unreachable, and reports that', async () => {
    await here.register('app', { claim: 'dead' });
    await stage.sshd.stop();
    const { text, code } = await cleanup(here, { sshd: stage.sshd, registry: there.registry });
    expect(text).toMatch(/The relay could not be read, and nothing is removed there: .*Connection refused/);
    expect(code).toBe(1);
    expect(await here.files()).toEqual([]);
  });
});

describe('cleanup of tunnels', () => {
  let sshd: Sshd;
  let here: Remains;
  const children: ChildProcess[] = [];

  beforeEach(async (context) => {
    needSshd(context);
    sshd = await startSshd();
    announce(sshd);
    here = await openRemains();
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    await sshd?.close();
    await here?.[Symbol.asyncDispose]();
  });

  /** An ssh as a wrapper starts it, with a session that goes on for as long as its input is open. */
  async function tunnel(port: number): Promise<ChildProcess> {
    const [program = '', ...words] = sshd.command;
    const child = spawn(program, [...words, '-T', '-R', `0:127.0.0.1:${port}`, REMOTE_COMMAND], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    children.push(child);
    await until('the session to run', async () => (await sshd.remoteProcesses()).length > 0);
    return child;
  }

  async function local(): Promise<Result> {
    let text = '';
    const code = await runCleanup({
      settings: here.places(),
      dryRun: false,
      out: (more) => (text += more),
      signal: never,
    });
    return { text, code };
  }

  it('ends the tunnel of a wrapper that has ended', async () => {
    const port = await freePort();
    const child = await tunnel(port);
    await here.state({ id: 'gone', port, sshPid: child.pid ?? 0 });
    const { text, code } = await local();
    expect(text).toContain(`Removed tunnel ssh with pid ${child.pid}, the tunnel to port ${port}`);
    expect(code).toBe(0);
    await until('ssh to end', () => hasEnded(child));
    expect(await descendantsOf(child.pid ?? 0)).toEqual([]);
  });

  it("leaves a running wrapper's tunnel, another port's, and other processes", async () => {
    const port = await freePort();
    const child = await tunnel(port);
    const sleeper = await here.process();
    const { pid = 0 } = await here.process();
    const started = (await identifyProcess(pid))?.started;
    await here.state({ id: 'runs', pid, ...(started !== undefined && { started }), port, sshPid: child.pid ?? 0 });
    await here.state({ id: 'same-ssh', port, sshPid: child.pid ?? 0 });
    await here.state({ id: 'no-tunnel', port, sshPid: sleeper.pid ?? 0 });
    const { text } = await local();
    expect(text).not.toContain('tunnel ssh');
    expect([hasEnded(child), hasEnded(sleeper)]).toEqual([false, false]);
    await here.state({ id: 'other-port', port: port + 1, sshPid: child.pid ?? 0 });
    await here.state({ id: 'runs', pid: 1, started: '-1', port: port + 1 });
    expect((await local()).text).not.toContain('tunnel ssh');
    expect(hasEnded(child)).toBe(false);
  });

  it("leaves another user's process with such words in its command line", async (context) => {
    if (process.getuid?.() !== 0) context.skip(true, 'needs root');
    const port = await freePort();
    const child = spawn('sh', ['-c', 'read -r line', 'opencode-connected', '-R', `0:127.0.0.1:${port}`, 'x'], {
      stdio: ['pipe', 'ignore', 'ignore'],
      uid: 65_534,
    });
    children.push(child);
    await new Promise((resolve) => child.once('spawn', resolve));
    await here.state({ id: 'gone', port, sshPid: child.pid ?? 0 });
    expect((await local()).text).not.toContain('tunnel ssh');
    expect(hasEnded(child)).toBe(false);
  });
});

/** ssh exits on SIGTERM. */
function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}
