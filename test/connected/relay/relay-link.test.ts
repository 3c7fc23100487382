import { existsSync } from 'node:fs';
import { chown, lchown, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { relayRegistry } from '../../../src/connected/survey/relay-registry.ts';
import { kernelAddress, readListeners } from '../../../src/base/socket-table.ts';
import { needRoot } from '../../discovery/as-root.ts';
import { installConnected, needSshd, signalProcess } from '../../rig/sshd.ts';
import { until } from '../../rig/wait.ts';
import { openRelayStage, type Link, type RelayStage } from './relay-stage.ts';

const never = new AbortController().signal;
const OWN = '.local/state/opencode-mcp/registry';

describe.each(['system', 'busybox'] as const)('a link to a real sshd with the %s shell', (shell) => {
  let stage: RelayStage;

  beforeEach(async (context) => {
    needSshd(context, shell);
    stage = await openRelayStage({ shell });
  });
  afterEach(() => stage?.[Symbol.asyncDispose]());

  async function connected(options: Parameters<RelayStage['link']>[0] = {}): Promise<Link> {
    const link = stage.link(options);
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
    link.keep();
    return link;
  }

  /** Lets the waiting time pass, and resolves once the link is up again. */
  async function backAgain(link: Link): Promise<void> {
    const seen = link.states.length;
    await until('the link to wait', () => link.state.kind === 'waiting' && stage.clock.due(60_000) > 0);
    await stage.clock.advance(1_000);
    await link.reaches('connected', seen);
  }

  /** Lets the time of a heartbeat pass, and resolves once it was heard and its answer is on the way. */
  async function heartbeat(link: Link): Promise<void> {
    const touched = async (): Promise<number> => (await stat(join(stage.registry, '.laptop-app.claim'))).ctimeMs;
    const before = await touched();
    await stage.clock.advance(20_000);
    await until('the heartbeat', async () => (await touched()) > before);
    // A round trip through the same connection is behind the answer.
    await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
  }

  /** Kills one process of the program, counted in the order in which they start. */
  async function killRemote(number: number): Promise<void> {
    const processes = await until('all five processes', async () => {
      const found = await stage.sshd.remoteProcesses();
      return found.length === 5 && found;
    });
    signalProcess(processes.toSorted((one, other) => one.pid - other.pid)[number]!.pid, 'SIGKILL');
  }

  it('registers with the port that the relay gave, and the tunnel carries requests', async () => {
    const link = await connected();
    const { port, name } = link.state;
    expect(name).toBe('laptop-app');
    expect(await stage.registration('laptop-app')).toEqual({
      id: 'id-one',
      name: 'laptop-app',
      hostname: 'laptop',
      port,
      localPort: stage.opencode.port,
      cwd: '/home/user/project',
      connectedAt: '2026-01-01T00:00:00Z',
    });
    const response = await fetch(`http://127.0.0.1:${port}/global/health`);
    expect(await response.json()).toMatchObject({ healthy: true });
    expect(stage.opencode.count('GET /global/health')).toBe(1);
  });

  it('makes the registry directory for its owner alone, and the password file in it', async () => {
    await connected();
    const mode = async (path: string): Promise<string> =>
      ((await stat(join(stage.registry, path))).mode & 0o777).toString(8);
    expect(await mode('.')).toBe('700');
    expect(await mode('.credentials')).toBe('700');
    expect(await mode('.credentials/id-one')).toBe('600');
    expect(await mode('laptop-app.json')).toBe('644');
  });

  it('takes everything back when it is closed', async () => {
    const link = await connected();
    await link.close();
    expect(link.state).toEqual({ kind: 'closed' });
    expect(await stage.files()).toEqual([]);
    expect(await stage.passwords()).toEqual([]);
    await stage.nothingLeft();
  });

  it('takes everything back though a request still uses the tunnel', async () => {
    const link = await connected();
    const stream = await fetch(`http://127.0.0.1:${link.state.port}/event`);
    expect(stage.opencode.openStreams).toBe(1);
    await link.close();
    expect(await stage.files()).toEqual([]);
    await stream.body?.cancel().catch(() => {});
    await stage.nothingLeft();
  });

  it.each([
    [0, 'the first'],
    [1, 'the one that reads'],
  ])('is back after process %i of the program on the relay was killed: %s', async (number) => {
    // The sleep of a killed timer is the one thing that nobody ends: it ends by itself.
    const link = await connected({ limitSeconds: 10 });
    await killRemote(number);
    await link.reaches('waiting');
    await stage.nothingLeft();
    await backAgain(link);
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
  });

  it.each([
    [2, 'the guard'],
    [3, 'the timer'],
    [4, "the timer's sleep"],
  ])('goes on after process %i of the program on the relay was killed: %s', async (number) => {
    const link = await connected({ limitSeconds: 10 });
    await killRemote(number);
    await heartbeat(link);
    expect(link.state.kind).toBe('connected');
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
    await link.close();
    await stage.nothingLeft();
  });

  it('puts back what a cleaner of temporary files removed', async () => {
    const link = await connected();
    for (const name of ['laptop-app.json', '.laptop-app.claim', '.credentials/id-one']) {
      await rm(join(stage.registry, name));
    }
    await stage.clock.advance(20_000);
    await until('the registration to be back', () => existsSync(join(stage.registry, 'laptop-app.json')));
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
    expect(await stage.passwords()).toEqual(['id-one']);
    await link.close();
    await stage.nothingLeft();
  });

  it('replaces a registration on whose port nothing listens, and no other', async () => {
    const link = await connected();
    const { port } = link.state;
    await writeFile(join(stage.registry, 'dead.json'), JSON.stringify({ name: 'dead', port: 9 }));
    await writeFile(join(stage.registry, 'alive.json'), JSON.stringify({ name: 'alive', port }));
    await writeFile(join(stage.registry, 'half.json'), '{"name":"ha');
    const names = await Promise.all(
      ['dead', 'alive', 'half'].map(async (name) => (await connected({ id: `id-${name}`, name })).state.name),
    );
    expect(names).toEqual(['dead', 'alive-2', 'half-2']);
  });

  it.each([
    ['quotes', `it's "quoted"`],
    ['spaces', 'two  words '],
    ['what a shell would run', '$(touch ran) `touch ran` ; touch ran & | > ran *'],
    ['Unicode', 'ноутбук-目录-🙂-é'],
    ['backslashes and a dash', String.raw`-n \n \0101 %s`],
  ])('takes a name and a directory with %s as they are', async (_, text) => {
    const link = await connected({
      name: text,
      registryDirectory: join(stage.registry, text),
      password: text,
      describe: () => ({ cwd: `/home/${text}\nand a line` }),
    });
    expect(link.state.name).toBe(text);
    const written: unknown = JSON.parse(await readFile(join(stage.registry, text, `${text}.json`), 'utf8'));
    expect(written).toMatchObject({ name: text, cwd: `/home/${text}\nand a line` });
    expect(await readFile(join(stage.registry, text, '.credentials', 'id-one'), 'utf8')).toBe(`${text}\n`);
    await link.close();
    expect(await readdir(join(stage.registry, text))).toEqual(['.credentials']);
    expect(await readdir(stage.sshd.home)).toEqual([]);
  });

  it.each([
    ["another user's", () => mkdir(stage.registry).then(() => chown(stage.registry, 1000, 1000))],
    ["another user's file", () => writeFile(stage.registry, '').then(() => chown(stage.registry, 1000, 1000))],
    ["another user's link", () => symlink('/nowhere', stage.registry).then(() => lchown(stage.registry, 1000, 1000))],
    ['free, after it was not', () => mkdir(join(stage.sshd.home, OWN), { recursive: true, mode: 0o700 })],
  ])("takes the user's own directory where the default one is %s", async (_, occupy) => {
    await occupy();
    const link = await connected({ isDefaultDirectory: true });
    expect(link.directory).toBe(join(stage.sshd.home, OWN));
    expect(await readdir(join(stage.sshd.home, OWN))).toContain('laptop-app.json');
    await installConnected(stage.sshd);
    const registry = relayRegistry({ sshCommand: stage.sshd.command, directory: stage.registry, isDefault: true });
    const found = await registry.survey(never);
    expect(found).toMatchObject({ directory: link.directory, registrations: [{ name: 'laptop-app' }] });
  });

  it("expands ~/ to the relay's home", async () => {
    await connected({ registryDirectory: '~/a registry' });
    expect(existsSync(join(stage.sshd.home, 'a registry', 'laptop-app.json'))).toBe(true);
  });

  // What follows is the link's own. How the program on the relay does it in each shell: remote-program.test.ts.
  if (shell !== 'system') return;

  it('leaves nothing behind in eight connects and disconnects in a row', async () => {
    for (let round = 1; round <= 8; round += 1) {
      const link = await connected();
      expect((await stage.files()).filter((name) => name.endsWith('.json'))).toEqual(['laptop-app.json']);
      expect(await stage.passwords()).toEqual(['id-one']);
      await link.close();
      await stage.nothingLeft();
    }
  });

  it('is back after ssh was killed, also five times in a row; each registration is gone at once', async () => {
    const link = await connected();
    for (let lost = 0; lost < 5; lost += 1) {
      const seen = link.states.length;
      const [ssh] = await link.ssh();
      signalProcess(ssh!.pid, 'SIGKILL');
      expect(await link.reaches('waiting', seen)).toMatchObject({ reason: expect.stringContaining('SIGKILL') });
      await stage.nothingLeft();
      await backAgain(link);
    }
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port, id: 'id-one' });
    expect(await stage.passwords()).toEqual(['id-one']);
    const response = await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
    expect(response.status).toBe(200);
  });

  it("is back after the relay's session was killed", async () => {
    const link = await connected();
    expect(await stage.sshd.killSessions('SIGKILL')).toBeGreaterThan(0);
    await link.reaches('waiting');
    await stage.nothingLeft();
    await backAgain(link);
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
  });

  it('takes a stopped ssh for lost when answers are missing, and is back', async () => {
    const link = await connected();
    const [ssh] = await link.ssh();
    signalProcess(ssh!.pid, 'SIGSTOP');
    await stage.clock.advance(70_000);
    expect(await link.reaches('waiting')).toMatchObject({
      reason: expect.stringMatching(/^the relay has not answered for \d+ s$/),
    });
    await stage.nothingLeft();
    await backAgain(link);
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
  });

  it('keeps a connection whose heartbeats are answered', async () => {
    const link = await connected();
    // 100 s: past the relay's 90 and the 45 after which an answer is missed.
    for (let round = 0; round < 5; round += 1) await heartbeat(link);
    expect(link.states.map(({ kind }) => kind)).toEqual(['connecting', 'connected']);
  });

  it('loses the registration to a client that is silent, and leaves no process', async () => {
    const link = await connected({ limitSeconds: 1 });
    // No heartbeat: the clock stands.
    expect(await link.reaches('waiting')).toMatchObject({ kind: 'waiting' });
    await stage.nothingLeft();
  });

  it('is back when sshd is, and says until then why not', async () => {
    const link = await connected();
    await stage.sshd.stop();
    await link.reaches('waiting');
    await stage.nothingLeft();
    const seen = link.states.length;
    await until('the link to wait', () => link.state.nextAttemptAtMs !== undefined && stage.clock.due(60_000) > 0);
    await stage.clock.advance(2_000);
    expect(await link.reaches('waiting', seen + 1)).toMatchObject({
      reason: expect.stringContaining('Connection refused'),
    });
    await stage.sshd.start();
    await backAgain(link);
    expect(await stage.registration('laptop-app')).toMatchObject({ port: link.state.port });
  });

  it('gives the second of two instances of one name another, and keeps it for good', async () => {
    const first = await connected();
    const second = await connected({ id: 'id-two', password: 'second secret' });
    expect([first.state.name, second.state.name]).toEqual(['laptop-app', 'laptop-app-2']);
    expect(await stage.registration('laptop-app-2')).toMatchObject({ id: 'id-two', name: 'laptop-app-2' });
    await first.close();
    const [ssh] = await second.ssh();
    signalProcess(ssh!.pid, 'SIGKILL');
    await second.reaches('waiting');
    await backAgain(second);
    expect(second.state.name).toBe('laptop-app-2');
    expect((await stage.files()).filter((name) => name.endsWith('.json'))).toEqual(['laptop-app-2.json']);
  });

  it('gives each of eight that come at once a name of its own', async () => {
    const links = Array.from({ length: 8 }, (_, index) => stage.link({ id: `id-${index}` }));
    await Promise.all(links.map((link) => link.connectFirst(never)));
    const names = links.map(({ state }) => state.name ?? 'none');
    expect(new Set(names)).toEqual(
      new Set(['laptop-app', ...[2, 3, 4, 5, 6, 7, 8].map((number) => `laptop-app-${number}`)]),
    );
    for (const [index, name] of names.entries()) {
      expect(await stage.registration(name)).toMatchObject({ id: `id-${index}`, port: links[index]?.state.port });
    }
    await Promise.all(links.map((link) => link.close()));
    await stage.nothingLeft();
  });

  it('takes the default directory where it is free, and then where it is ours', async () => {
    const first = await connected({ isDefaultDirectory: true });
    const second = await connected({ isDefaultDirectory: true, id: 'id-two' });
    expect([first.directory, second.directory]).toEqual([undefined, undefined]);
    expect(await stage.files()).toEqual(expect.arrayContaining(['laptop-app.json', 'laptop-app-2.json']));
  });
});

describe.each(['system', 'busybox'] as const)('a relay with GatewayPorts and the %s shell', (shell) => {
  async function open(setting: string): Promise<RelayStage> {
    return openRelayStage({ shell, config: [`GatewayPorts ${setting}`] });
  }

  it('yes: is refused with the reason, keeps no port open, registers nothing and is not asked again', async (context) => {
    needSshd(context, shell);
    await using stage = await open('yes');
    const link = stage.link();
    expect(await link.connectFirst(never)).toEqual({
      kind: 'closed',
      reason: expect.stringMatching(
        /^the relay says "its sshd opened the tunnel to other machines.*nothing was registered; set GatewayPorts to no or clientspecified/,
      ),
    });
    link.keep();
    await stage.nothingLeft();
    expect(existsSync(stage.registry)).toBe(false);
    await stage.clock.advance(600_000);
    expect(link.states.map(({ kind }) => kind)).toEqual(['connecting', 'closed']);
    expect(stage.sshd.logs().match(/Accepted publickey/g)).toHaveLength(1);
  });

  it('clientspecified: listens on loopback', async (context) => {
    needSshd(context, shell);
    await using stage = await open('clientspecified');
    const { port } = await stage.link().connectFirst(never);
    const at = (await readListeners())?.filter(({ local }) => local.port === port).map(({ local }) => local.address);
    expect(new Set(at)).toEqual(new Set([kernelAddress('127.0.0.1'), kernelAddress('::1')]));
  });
});

it('where the relay cannot see whether the tunnel is open to others, warns once', async (context) => {
  needSshd(context);
  needRoot(context);
  const blind = `unshare --mount /bin/sh -c 'mount -t tmpfs none /proc; exec sh -c "$SSH_ORIGINAL_COMMAND"'`;
  await using stage = await openRelayStage({ config: [`ForceCommand ${blind}`] });
  const warnings: string[] = [];
  const logger = { log: (level: string, message: string) => void (level === 'warn' && warnings.push(message)) };
  const link = stage.link({ logger });
  expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
  const unseen = (): string[] => warnings.filter((message) => message.includes('GatewayPorts'));
  expect(unseen()).toEqual([expect.stringContaining('the relay cannot see whether the tunnel is open')]);
  link.keep();
  const seen = link.states.length;
  await stage.sshd.killSessions();
  await until('the link to wait', () => link.state.kind === 'waiting' && stage.clock.due(60_000) > 0);
  await stage.clock.advance(1_000);
  await link.reaches('connected', seen);
  expect(unseen()).toHaveLength(1);
});
