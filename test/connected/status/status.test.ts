import { execFile } from 'node:child_process';
import { chmod, mkdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';

import { identifyProcess } from '../../../src/connected/process-table.ts';
import { runStatus } from '../../../src/connected/status/command.ts';
import type { Places } from '../../../src/connected/status/places.ts';
import { renderStatus } from '../../../src/connected/status/render.ts';
import type { StatusReport } from '../../../src/connected/status/report.ts';
import { announce } from '../../rig/announce.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../../rig/fake/fake-opencode.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { stringsIn, unsafeIn } from '../../rig/hostile-words.ts';
import { freePort } from '../../rig/ports.ts';
import { installConnected, needSshd, startSshd } from '../../rig/network/sshd.ts';
import { HOUR_MS, openRemains, outputOf, type RegisterOptions, type Remains } from '../cleanup/remains.ts';

const execute = promisify(execFile);

interface Result {
  readonly report: StatusReport;
  /** The report as `status` prints it. */
  readonly text: string;
  readonly code: number;
}

async function status(remains: Remains, extra: Partial<Places> = {}): Promise<Result> {
  const settings = remains.places(extra);
  const { text, code } = await outputOf((io) => runStatus({ settings, json: true, ...io }));
  const report: StatusReport = JSON.parse(text);
  return { report, text: renderStatus(report, Date.now()), code };
}

let remains: Remains;

beforeEach(async () => {
  remains = await openRemains();
});

async function openFake(options: FakeOptions = {}): Promise<FakeOpencode> {
  const fake = await startFakeOpencode(options);
  onTestFinished(() => fake.close());
  return fake;
}

describe('status of an opencode behind a password', () => {
  let opencode: FakeOpencode;

  beforeEach(async () => {
    opencode = await openFake({ password: "it's a secret", directory: '/home/user/project', version: '1.18.33' });
  });

  const registration = (): RegisterOptions => ({ port: opencode.port, id: 'id-app' });

  it('shows that it is healthy, and how to attach to it', async () => {
    await remains.register('app', registration());
    const passwordFile = join(remains.registry, '.credentials', 'id-app');
    await writeFile(passwordFile, "it's a secret\n", { mode: 0o600 });
    const { report, text, code } = await status(remains);
    expect(report.here.instances).toEqual([
      {
        name: 'app',
        id: 'id-app',
        host: hostname(),
        port: opencode.port,
        localPort: opencode.port,
        directory: opencode.directory,
        state: 'idle',
        answer: { state: 'healthy', version: '1.18.33', directory: opencode.directory },
        passwordFile,
        attach: `OPENCODE_SERVER_PASSWORD="$(cat ${passwordFile})" opencode attach ${opencode.url}`,
      },
    ]);
    expect(text).toContain('opencode-mcp attach NAME');
    expect(text).toContain(`  OPENCODE_SERVER_PASSWORD="$(cat ${passwordFile})" opencode attach ${opencode.url}\n`);
    expect(text).toMatch(new RegExp(`^idle +${opencode.port} +app +1.18.33 +\\S+$`, 'm'));
    expect(text).not.toContain('a secret');
    expect(code).toBe(0);
  });

  it('shows a command in which a shell reads the password from any path', async () => {
    const registry = join(remains.path, `it's $(a) "folder"`);
    await mkdir(join(registry, '.credentials'), { recursive: true, mode: 0o700 });
    await chmod(registry, 0o700);
    const fields = { name: 'app', port: opencode.port, id: 'id-app' };
    await writeFile(join(registry, 'app.json'), JSON.stringify(fields));
    await writeFile(join(registry, '.credentials', 'id-app'), "it's a secret\n", { mode: 0o600 });
    const { report } = await status(remains, { registryDir: { path: registry, explicit: true } });
    const attach = report.here.instances[0]?.attach ?? '';
    expect(attach).toMatch(/ opencode attach /);
    const printPassword = attach.replace(/ opencode attach .*/, ` sh -c 'printf %s "$OPENCODE_SERVER_PASSWORD"'`);
    expect((await execute('sh', ['-c', printPassword])).stdout).toBe("it's a secret");
  });

  it('shows that it is locked if the password is unknown or wrong', async () => {
    await remains.register('app', registration());
    expect((await status(remains)).report.here.instances[0]).toMatchObject({
      answer: { state: 'locked', reason: expect.stringContaining('none is known for it') },
    });
    await remains.password('id-app');
    const { report, text } = await status(remains);
    expect(report.here.instances[0]?.answer).toMatchObject({
      reason: expect.stringContaining('it refused the password'),
    });
    expect(report.here.instances[0]).not.toHaveProperty('attach');
    expect(text).toMatch(/^locked +\d+ +app/m);
  });

  it('identifies another instance that answers, and sends it no further requests', async () => {
    await remains.register('app', { ...registration(), fields: { cwd: '/home/user/elsewhere' } });
    await writeFile(join(remains.registry, '.credentials', 'id-app'), "it's a secret\n", { mode: 0o600 });
    const { report } = await status(remains);
    expect(report.here.instances[0]?.answer).toEqual({
      state: 'other',
      version: '1.18.33',
      directory: opencode.directory,
      reason: 'another instance answers here: registered for /home/user/elsewhere',
    });
    expect([opencode.count('GET /session'), opencode.count('GET /session/status')]).toEqual([0, 0]);
    expect(report.here.instances[0]).not.toHaveProperty('attach');
  });
});

describe('status of this machine', () => {
  it('shows which registrations are offline, unsupported, not an opencode, or untrusted', async () => {
    const silent = await listenHttp(() => {});
    onTestFinished(() => silent.close());
    const old = await openFake({ version: '1.2.3' });
    const web = await openFake();
    web.override('GET /global/health', { kind: 'html' });
    await remains.register('refused');
    await remains.register('silent', { port: silent.port });
    await remains.register('old', { port: old.port });
    await remains.register('web', { port: web.port });
    await remains.register('untrusted');
    await chmod(join(remains.registry, 'untrusted.json'), 0o666);
    await writeFile(join(remains.registry, 'half.json'), '{"na');
    await symlink('/etc/passwd', join(remains.registry, 'link.json'));
    const { report, text, code } = await status(remains, { healthCheckTimeoutMs: 1_000 });
    expect(Object.fromEntries(report.here.instances.map(({ name, answer }) => [name, answer.state]))).toEqual({
      refused: 'refused',
      silent: 'silent',
      old: 'unsupported',
      web: 'failed',
      untrusted: 'untrusted',
    });
    // In the words of `opencode-mcp list`.
    expect(Object.fromEntries(report.here.instances.map(({ name, state }) => [name, state]))).toEqual({
      refused: 'offline',
      silent: 'offline',
      old: 'unsupported',
      web: 'offline',
      untrusted: 'untrusted',
    });
    expect(report.here.notes.map(({ subject, reason }) => [subject.split('/').at(-1), reason])).toEqual([
      ['half.json', expect.stringContaining('is not complete JSON')],
      ['link.json', expect.stringContaining('is a symbolic link')],
      ['untrusted.json', expect.stringContaining('untrusted')],
    ]);
    expect(text).toMatch(/^offline +\d+ +silent/m);
    expect(text).toMatch(/gave no answer within \d+ ms/);
    expect(code).toBe(0);
  });

  it('shows the tunnels of running wrappers', async () => {
    const { pid, started } = await remains.process();
    const identity = { pid, started };
    await remains.state({
      id: 'one',
      ...identity,
      name: 'app',
      relay: { kind: 'connected', name: 'app-2', port: 41_234 },
    });
    await remains.state({
      id: 'two',
      ...identity,
      name: 'later',
      relay: { kind: 'waiting', reason: 'Connection refused', nextAttemptAtMs: Date.now() + 600_000 },
    });
    await remains.state({ id: 'three', ...identity, name: 'alone' });
    const { report, text } = await status(remains);
    expect(report.wrappers.map(({ id, running, tunnel }) => [id, running, tunnel?.state])).toEqual([
      ['one', true, 'connected'],
      ['three', true, undefined],
      ['two', true, 'waiting'],
    ]);
    const unwrapped = text.replace(/\n +/g, ' ');
    expect(unwrapped).toContain('relay: connected as app-2, port 41234 there');
    expect(unwrapped).toContain('relay: not connected (Connection refused), next attempt in 10 min');
    expect(unwrapped).toContain('without a relay');
    expect(report.leftovers).toEqual([]);
  });

  it('lists the leftovers that cleanup would remove, and removes nothing', async () => {
    const { id, port } = await remains.register('app', { claim: 'dead', password: true });
    await remains.state({ id, port });
    await remains.password('stale', { ageMs: 2 * HOUR_MS });
    const before = await remains.files();
    const { report, text } = await status(remains);
    expect(report.leftovers.map(({ what }) => what)).toEqual(['registration', 'password', 'password', 'state file']);
    expect(text).toContain('4 leftovers of dead instances; opencode-connected cleanup removes them:');
    expect(await remains.files()).toEqual(before);
    expect(report.wrappers).toMatchObject([{ id, running: false }]);
  });

  it('reports that nothing is registered, and creates no directory', async () => {
    await rm(remains.registry, { recursive: true });
    const { report, text, code } = await status(remains);
    expect(report.here).toEqual({ directory: remains.registry, instances: [], notes: [] });
    expect(text.replaceAll('\n', ' ')).toContain(`This machine: nothing is registered in ${remains.registry}.`);
    expect(code).toBe(0);
    await expect(stat(remains.registry)).rejects.toThrow('ENOENT');
  });

  it('reports why it cannot read the directory', async () => {
    await rm(remains.registry, { recursive: true });
    await writeFile(remains.registry, 'no directory');
    const { report, code } = await status(remains);
    expect(report.here.problem).toContain('ENOTDIR');
    expect(code).toBe(1);
  });

  it('keeps to 80 columns with any names, and prints nothing that controls a terminal', async () => {
    await remains.register('a'.repeat(100), {
      fields: { cwd: `/home/${'deep/'.repeat(60)}`, hostname: 'h'.repeat(200) },
    });
    await remains.register('evil', { fields: { name: '\u001b[2Jevil\u202e', cwd: '/x\u001b]0;title\u0007\n/y' } });
    await remains.register('далеко', { fields: { localPort: 9 } });
    const { text } = await outputOf((io) => runStatus({ settings: remains.places(), json: false, ...io }));
    // oxlint-disable-next-line no-control-regex -- the text may contain none
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
    const rows = text.split('\n').filter((line) => /^\S+ +\d+ /.test(line));
    expect(rows).toHaveLength(3);
    expect(Math.max(...rows.map((line) => Array.from(line).length))).toBeLessThanOrEqual(80);
  });

  it('lists 200 of many dead registrations', async () => {
    const port = await freePort();
    await Promise.all(
      Array.from({ length: 250 }, (_, index) => remains.register(`app-${index}`, { port, claim: 'dead' })),
    );
    const { report, text } = await status(remains);
    expect(report.here.instances).toHaveLength(250);
    expect(new Set(report.here.instances.map(({ answer }) => answer.state))).toEqual(new Set(['refused']));
    expect(report.leftovers).toHaveLength(250);
    expect(text).toContain('and 50 more; --json shows all');
  });

  it('prints JSON whose strings are safe to show', async () => {
    const path = `${remains.places().registryDir.path}/\u001b[2J\u202e`;
    const { report } = await status(remains, { registryDir: { path, explicit: true } });
    for (const [key, text] of stringsIn(report)) expect(unsafeIn(text), key).toBe(undefined);
  });
});

describe('status of a relay', () => {
  it('lists registrations with their holders, and shows which ports have a listener', async (context) => {
    needSshd(context);
    const relayRemains = await openRemains();
    const sshd = await startSshd();
    onTestFinished(() => sshd.close());
    announce(sshd);
    await installConnected(sshd);
    const { pid, started } = await relayRemains.process();
    await remains.state({ id: 'id-held', pid, started });
    await relayRemains.register('held', {
      claim: { pid },
      id: 'id-held',
      port: sshd.port,
      fields: { localPort: 4100 },
    });
    await relayRemains.register('lost', { claim: 'dead', password: true });
    await relayRemains.register('plain', { fields: { hostname: 'laptop' } });
    await relayRemains.password('secret-id');
    await writeFile(join(relayRemains.registry, 'half.json'), '{"na');
    const { report, text, code } = await status(remains, {
      relaySshCommand: sshd.command,
      relayRegistryDir: { path: relayRemains.registry, explicit: true },
    });
    expect(report.relay).toMatchObject({
      directory: relayRemains.registry,
      host: hostname(),
      registrations: [
        {
          name: 'held',
          listens: 'yes',
          claim: 'alive',
          owner: 'mine',
          fromHere: true,
          port: sshd.port,
          localPort: 4100,
        },
        { name: 'lost', listens: 'no', claim: 'dead', fromHere: false },
        { name: 'plain', listens: 'no', claim: 'none', host: 'laptop' },
      ],
      notes: [{ subject: 'half.json' }],
    });
    expect(report.leftovers.map(({ where, what }) => [where, what])).toEqual([
      ['relay', 'registration'],
      ['relay', 'password'],
    ]);
    expect(text).toMatch(new RegExp(`^listens +${sshd.port} +held .*\\n {2}this machine, held$`, 'm'));
    expect(text).toMatch(/^silent +\d+ +lost .*\n.*its connection is gone$/m);
    expect(text).not.toContain('a secret');
    expect(code).toBe(0);
  });

  it('reports that the relay cannot be read, and shows the state that is known here', async () => {
    const { pid, started } = await remains.process();
    await remains.state({ id: 'one', pid, started, relay: { kind: 'connected', name: 'app-2', port: 41_234 } });
    await remains.register('app');
    const relaySshCommand = ['sh', '-c', 'echo "Connection refused" >&2; exit 255', 'sh'];
    const { report, text, code } = await status(remains, { relaySshCommand });
    expect(report.relay?.problem).toContain('Connection refused');
    expect(text).toContain('Relay: cannot be read:');
    expect(text.replace(/\s+/g, ' ')).toContain('relay: connected as app-2, port 41234 there');
    expect(report.here.instances).toHaveLength(1);
    expect(code).toBe(1);
  });
});

describe('status of an OpenCode 2', () => {
  it("recognizes the user's own service, and shows the command for a terminal on it", async () => {
    await using fake = await startFakeOpencode2();
    const opencodeStateDir = join(remains.path, 'opencode');
    await mkdir(opencodeStateDir);
    await remains.register('laptop:service', { port: fake.port, fields: { cwd: null } });
    // Only the file that `fake.register` writes holds the password.
    const before = (await status(remains)).report.here.instances[0];
    expect(before).toMatchObject({ answer: { state: 'locked', reason: expect.stringContaining('OpenCode 2') } });
    await fake.register(opencodeStateDir);
    const { report, text, code } = await status(remains);
    expect(report.here.instances[0]).toMatchObject({
      answer: { state: 'healthy', version: fake.version, directory: '' },
      attach: 'opencode',
    });
    expect(text).toMatch(/^idle +\d+ +laptop:service /m);
    expect(text).not.toContain(fake.password);
    expect(code).toBe(0);
  });

  it('shows the command that opens a terminal on a service registered through a relay', async () => {
    await using fake = await startFakeOpencode2({ password: 'tunnel password' });
    await remains.register('laptop:service', { id: 'id-service', port: fake.port, fields: { cwd: null } });
    const passwordFile = join(remains.registry, '.credentials', 'id-service');
    await mkdir(join(remains.registry, '.credentials'), { recursive: true, mode: 0o700 });
    await writeFile(passwordFile, 'tunnel password\n', { mode: 0o600 });
    const { text } = await status(remains);
    expect(text).toContain(`  OPENCODE_PASSWORD="$(cat ${passwordFile})" opencode --server ${fake.url}\n`);
  });

  it('shows the service of a wrapper, and the settings for other machines on the LAN', async () => {
    const self = await identifyProcess(process.pid);
    await remains.state({
      id: 'id-service',
      pid: process.pid,
      started: self?.started,
      service: { url: 'http://127.0.0.1:49374', pid: 7 },
      onLan: true,
      lan: { port: 4777, passwordFile: '/home/user/lan/password' },
    });
    const { text } = await status(remains);
    expect(text.replace(/\s+/g, ' ')).toContain('the service of OpenCode 2 at http://127.0.0.1:49374, for');
    expect(text).toContain('id-service: port 4777');
    expect(text.replace(/\s+/g, ' ')).toContain('cat /home/user/lan/password');
  });
});
