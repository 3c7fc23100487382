import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { silentLogger } from '../../src/base/log.ts';
import { systemClock } from '../../src/base/clock.ts';
import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { createTailscaleSource } from '../../src/discovery/tailnet/tailscale.ts';
import type { LiveFleet } from '../../src/fleet/fleet.ts';
import { isReported } from '../../src/model/report.ts';
import { instances } from '../../src/operations/listing/instances.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { respond } from '../../src/operations/respond/respond.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import { wait } from '../../src/operations/send/wait.ts';
import { runService, type RunningService, SELF } from '../node/stage.ts';
import { tapEvents } from '../rig/opencode/event-tap.ts';
import { MemoryLocalApi, tailnetNode } from '../rig/fake/memory-local-api.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { openSandbox } from '../rig/opencode/opencode-sandbox.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { createRealSession } from '../rig/opencode/real-session.ts';
import { testCall, testFleet, testRuntime } from '../rig/runtime.ts';
import { needTmux, openTmux } from '../rig/programs/tmux.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const run = promisify(execFile);
const PASSWORD = 'pa55word-of-the-opencode';
const ID = 'real-instance';

/** A server with a real opencode and a node service, and a laptop without the password. Only whois is in memory; test/tailnet has real tailnets. */
describe.skipIf(isMissing(PINNED_OPENCODE))('a real opencode behind the node service', () => {
  const server = tailnetNode({ id: 'server', addresses: [SELF] });
  // Where a connection to another loopback address comes from.
  const laptop = tailnetNode({ id: 'laptop', addresses: ['127.0.0.1'] });
  let stage: Stage;
  let opencode: Opencode;
  let node: RunningService;
  let origin: string;
  const prefix = INSTANCE_PREFIX + ID;

  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode({ password: PASSWORD });
    const registration = { name: 'real', port: opencode.port, cwd: opencode.directory, id: ID };
    await stage.registry.add(registration, { password: PASSWORD });
    const api = new MemoryLocalApi(server);
    api.join(laptop);
    node = await runService(stage.registry.path, api, { watch: true });
    await until('the instance to be found', async () => (await node.instances.list()).length > 0);
    await until('the service to listen', () => node.service.addresses.length > 0);
    origin = `http://${SELF}:${node.port}`;
  });
  afterAll(async () => {
    await Promise.all([node.watcher.close(), node.service.close()]);
    await stage.close();
  });

  describe('as the laptop lists it', () => {
    let fleet: LiveFleet;
    let runtime: Runtime;

    beforeAll(async () => {
      const api = new MemoryLocalApi(laptop);
      api.join(server);
      const settings = { nodePort: node.port, ports: [], tags: [], users: [] };
      fleet = testFleet(createTailscaleSource(settings, { clock: systemClock, logger: silentLogger, localApi: api }));
      runtime = testRuntime(fleet);
      fleet.start();
      await isIn('idle');
      await until('the first round to end', () => fleet.counters.inFlight === 0);
    });
    afterAll(() => fleet.close());

    const isIn = (state: string): Promise<true> =>
      until(`it to be ${state}`, () =>
        fleet.snapshot().instances.some((one) => one.state === state && isReported(one.server)),
      );
    /** Requests that the node service passed on to opencode. */
    const passedOn = (): number =>
      node.log.filter(({ fields }) => String(fields['path']).startsWith(INSTANCE_PREFIX + ID)).length;

    test('is listed as busy and then idle, and gets no request except for its answer', async () => {
      const session = await createRealSession(opencode, 'Watched');
      const before = passedOn();
      await session.prompt('gate ends: the end');
      await isIn('busy');
      await stage.model.waitForGate('ends');
      const waiting = wait(runtime, { for: 'any' }, testCall());
      const { data } = await instances(runtime, { offset: 0 }, testCall());
      expect(data.instances).toMatchObject([{ name: 'real', state: 'busy', session: { id: session.id } }]);
      expect((await getStatus(runtime, { instance: 'real' }, testCall())).data).toMatchObject({
        state: 'busy',
        sessions: [{ id: session.id, title: 'Watched', state: 'busy' }],
      });
      expect(passedOn()).toBe(before);
      stage.model.release('ends');
      expect((await waiting).data.turns).toMatchObject([
        { session: { id: session.id }, outcome: 'completed', text: 'the end' },
      ]);
      await isIn('idle');
    });

    test('has its permission request listed without a request to it, and answered over a probed connection', async () => {
      const session = await createRealSession(opencode, 'Asks');
      await session.prompt('bash: rm -rf build');
      await isIn('waiting');
      const before = passedOn();
      for (let times = 0; times < 3; times += 1) {
        const { data } = await wait(runtime, { instances: ['real'], for: 'any' }, testCall());
        expect(data.turns).toMatchObject([
          { session: { id: session.id }, outcome: 'waiting', waiting: [expect.stringContaining('rm -rf build')] },
        ]);
        const [row] = (await instances(runtime, { offset: 0 }, testCall())).data.instances;
        expect(row).toMatchObject({ state: 'waiting', waiting: [expect.stringContaining('rm -rf build')] });
      }
      expect(passedOn()).toBe(before);
      await respond(runtime, { instance: 'real', reply: 'reject' }, testCall());
      await isIn('idle');
      expect(passedOn()).toBeGreaterThan(before);
    });
  });

  test('answers for its health and its directory', async () => {
    const health = await fetch(`${origin}${prefix}/global/health`);
    expect(await health.json()).toEqual({ healthy: true, version: opencode.version });
    const paths = await fetch(`${origin}${prefix}/path`);
    expect(await paths.json()).toMatchObject({ directory: opencode.directory });
    // Without the service it would be locked.
    expect((await fetch(`${opencode.url}/global/health`)).status).toBe(401);
  });

  test('takes a prompt, and streams the answer while the model still writes', async () => {
    const session = await createRealSession(opencode, 'Proxied');
    const tap = await tapEvents({ url: origin, directory: opencode.directory }, `${prefix}/event`);
    onTestFinished(() => tap.close());
    const message = 'gate-mid proxied: first half |second half';
    const sent = await fetch(`${origin}${prefix}/session/${session.id}/prompt_async`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ parts: [{ type: 'text', text: message }] }),
    });
    expect(sent.status).toBe(204);
    await tap.waitFor('message.part.delta', ({ sessionID }) => sessionID === session.id);
    stage.model.release('proxied');
    await tap.waitFor('session.idle', ({ sessionID }) => sessionID === session.id);
    expect((await session.settled()).text).toBe(expectedReply(message));
  });

  test('shows a terminal over a WebSocket', async () => {
    const made = await fetch(`${origin}${prefix}/pty`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ command: '/bin/sh', args: ['-c', 'echo out-$((40 + 2)); read line'] }),
    });
    const { id } = (await made.json()) as { readonly id: string };
    const socket = connect({ host: SELF, port: node.port });
    onTestFinished(() => void socket.destroy());
    let got = '';
    socket.on('data', (chunk: Buffer) => (got += chunk.toString('latin1')));
    socket.write(
      `GET ${prefix}/pty/${id}/connect?cursor=0 HTTP/1.1\r\nHost: ${SELF}:${node.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n`,
    );
    await until('the terminal’s output', () => got.includes('out-42'));
    expect(got).toMatch(/^HTTP\/1\.1 101 /);
  });

  test('works with opencode run --attach', async () => {
    await using person = await openSandbox({ directory: opencode.directory, env: { NO_PROXY: SELF } });
    const running = run(
      PINNED_OPENCODE,
      ['run', '--attach', origin + prefix, '--dir', opencode.directory, 'echo: through the proxy'],
      { env: { ...person.env }, cwd: opencode.directory, timeout: 90_000 },
    );
    // It reads all of its standard input first.
    running.child.stdin?.end();
    const { stdout } = await running;
    expect(stdout).toContain('through the proxy');
  });

  test('works with opencode attach: a typed message is answered on the screen', async (context) => {
    needTmux(context);
    await using person = await openSandbox({ directory: opencode.directory, env: { NO_PROXY: SELF } });
    await using terminal = await openTmux(person.env, opencode.directory);
    await terminal.type(`${PINNED_OPENCODE} attach ${origin}${prefix}`, 'Enter');
    await terminal.shows(/Ask anything/i);
    await terminal.type('echo: typed at the far end');
    await terminal.shows(/typed at the far end/);
    await terminal.type('', 'Enter');
    await until('the turn', () => stage.model.turns('echo: typed at the far end') === 1);
    await terminal.shows(/typed at the far end[^]*typed at the far end/);
  });
});
