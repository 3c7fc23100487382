import { existsSync } from 'node:fs';
import { chown, mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { beforeEach, describe, expect, it } from 'vitest';

import { relayRegistry } from '../../../src/connected/survey/relay-registry.ts';
import { kernelAddress, readListeners } from '../../../src/base/socket-table.ts';
import { needRoot } from '../../discovery/as-root.ts';
import { installConnected, needSshd } from '../../rig/network/sshd.ts';
import { until } from '../../rig/wait.ts';
import { openRelayStage, type Link, type RelayStage } from './relay-stage.ts';

const never = new AbortController().signal;
const USER_REGISTRY = '.local/state/opencode-mcp/registry';

describe('a link to a real sshd', () => {
  let stage: RelayStage;

  beforeEach(async (context) => {
    needSshd(context);
    stage = await openRelayStage();
  });

  async function openLink(options: Parameters<RelayStage['link']>[0] = {}): Promise<Link> {
    const link = stage.link(options);
    expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
    link.keep();
    return link;
  }

  /** Lets the time of a heartbeat pass, and resolves once its answer is on the way. */
  async function heartbeat(link: Link): Promise<void> {
    const touched = async (): Promise<number> => (await stat(join(stage.registry, '.laptop-app.claim'))).ctimeMs;
    const before = await touched();
    await stage.clock.advance(20_000);
    await until('the heartbeat', async () => (await touched()) > before);
    // A round trip through the same connection comes after the answer.
    await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
  }

  it('registers the port that the relay gave; the tunnel carries requests until the link closes, even during a request', async () => {
    const link = await openLink();
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
    const stream = await fetch(`http://127.0.0.1:${port}/event`);
    expect(stage.opencode.openStreams).toBe(1);
    await link.close();
    expect(link.state).toEqual({ kind: 'closed' });
    expect(await stage.files()).toEqual([]);
    expect(await stage.passwords()).toEqual([]);
    await stream.body?.cancel().catch(() => {});
    await stage.nothingLeft();
  });

  it('sends any characters unchanged: no shell reads them', async () => {
    const text = `it's "two"  words; $(touch ran) \`touch ran\` & | > ran * \\n \\0101 %s -n 目录-🙂`;
    const link = await openLink({
      name: text,
      registryDir: { path: join(stage.registry, text), explicit: true },
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

  it("uses the user's own directory if the default one belongs to another user, and the survey finds it", async (context) => {
    needRoot(context);
    await mkdir(stage.registry);
    await chown(stage.registry, 1000, 1000);
    const registryDir = { path: stage.registry, explicit: false };
    const link = await openLink({ registryDir });
    expect(link.directory).toBe(join(stage.sshd.home, USER_REGISTRY));
    await installConnected(stage.sshd);
    const found = await relayRegistry({ sshCommand: stage.sshd.command, registryDir }).survey(never);
    expect(found).toMatchObject({ directory: link.directory, registrations: [{ name: 'laptop-app' }] });
  });

  it("reconnects each time ssh or the relay's session is killed, and is not registered in between", async () => {
    const link = await openLink();
    for (const kill of [
      () => link.signalSsh('SIGKILL'),
      () => link.signalSsh('SIGKILL'),
      () => stage.sshd.killSessions('SIGKILL'),
    ]) {
      const seen = link.states.length;
      await kill();
      await link.reaches('waiting', seen);
      await stage.nothingLeft();
      await stage.backAgain(link);
    }
    expect(link.states.find(({ kind }) => kind === 'waiting')?.reason).toContain('SIGKILL');
    expect(await stage.passwords()).toEqual(['id-one']);
    const response = await fetch(`http://127.0.0.1:${link.state.port}/global/health`);
    expect(response.status).toBe(200);
  });

  it('keeps a connection whose heartbeats are answered', async () => {
    const link = await openLink();
    // 100 s: longer than the relay's limit of 90 s, and than the 45 s in which an answer must come.
    for (let round = 0; round < 5; round += 1) await heartbeat(link);
    expect(link.states.map(({ kind }) => kind)).toEqual(['connecting', 'connected']);
  });

  it('reconnects when sshd is back, and gives the reason until then', async () => {
    const link = await openLink();
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
    await stage.backAgain(link);
  });

  it('registers beside a local link if the relay is this machine, and leaves the password to the other registration', async () => {
    const here = await openLink({ sshCommand: undefined });
    const there = await openLink();
    expect([here.state.name, there.state.name]).toEqual(['laptop-app', 'laptop-app-2']);
    await there.close();
    expect(await stage.files()).toEqual(['.laptop-app.claim', 'laptop-app.json']);
    expect(await stage.passwords()).toEqual(['id-one']);
    await here.close();
    await stage.nothingLeft();
  });

  it('gets another name if an instance has the wanted one, and keeps it after reconnecting', async () => {
    const first = await openLink();
    const second = await openLink({ id: 'id-two', password: 'second secret' });
    expect([first.state.name, second.state.name]).toEqual(['laptop-app', 'laptop-app-2']);
    expect(await stage.registration('laptop-app-2')).toMatchObject({ id: 'id-two', name: 'laptop-app-2' });
    await first.close();
    await second.signalSsh('SIGKILL');
    await second.reaches('waiting');
    await stage.backAgain(second);
    expect(second.state.name).toBe('laptop-app-2');
    expect((await stage.files()).filter((name) => name.endsWith('.json'))).toEqual(['laptop-app-2.json']);
  });
});

describe('a relay with GatewayPorts', () => {
  it('yes is refused with the reason: no port stays open, nothing is registered, no further attempt', async (context) => {
    needSshd(context);
    const stage = await openRelayStage({ config: ['GatewayPorts yes'] });
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

  it('clientspecified listens on loopback', async (context) => {
    needSshd(context);
    const stage = await openRelayStage({ config: ['GatewayPorts clientspecified'] });
    const { port } = await stage.link().connectFirst(never);
    const at = (await readListeners())?.filter(({ local }) => local.port === port).map(({ local }) => local.address);
    expect(new Set(at)).toEqual(new Set([kernelAddress('127.0.0.1'), kernelAddress('::1')]));
  });
});

it('a link warns once if the relay cannot see whether the tunnel is open to other machines', async (context) => {
  needSshd(context);
  needRoot(context);
  const blind = `unshare --mount /bin/sh -c 'mount -t tmpfs none /proc; exec sh -c "$SSH_ORIGINAL_COMMAND"'`;
  const stage = await openRelayStage({ config: [`ForceCommand ${blind}`] });
  const warnings: string[] = [];
  const logger = { log: (level: string, message: string) => void (level === 'warn' && warnings.push(message)) };
  const link = stage.link({ logger });
  expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected' });
  const gatewayWarnings = (): string[] => warnings.filter((message) => message.includes('GatewayPorts'));
  expect(gatewayWarnings()).toEqual([expect.stringContaining('the relay cannot see whether the tunnel is open')]);
  await stage.sshd.killSessions();
  await stage.backAgain(link);
  expect(gatewayWarnings()).toHaveLength(1);
});
