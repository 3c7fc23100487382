import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { runService, type RunningService, SELF } from '../node/stage.ts';
import { tapEvents } from '../rig/event-tap.ts';
import { MemoryLocalApi, tailnetNode } from '../rig/memory-local-api.ts';
import { expectedReply } from '../rig/model-script.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { openSandbox } from '../rig/opencode-sandbox.ts';
import type { Opencode } from '../rig/opencode.ts';
import { createRealSession } from '../rig/real-session.ts';
import { needTmux, openTmux } from '../rig/tmux.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const run = promisify(execFile);
const PASSWORD = 'pa55word-of-the-opencode';
const ID = 'real-instance';

/** Whois alone is in memory: what a real tailnet says is for the suites that have one. */
describe.skipIf(isMissing(PINNED_OPENCODE))(
  'a real opencode behind the node service, without a password of the caller’s',
  () => {
    let stage: Stage;
    let opencode: Opencode;
    let node: RunningService;
    let origin: string;
    let prefix: string;

    beforeAll(async () => {
      stage = await openStage();
      opencode = await stage.opencode({ password: PASSWORD });
      await stage.registry.add(
        { name: 'real', port: opencode.port, cwd: opencode.directory, id: ID },
        { password: PASSWORD },
      );
      const api = new MemoryLocalApi(tailnetNode({ id: 'self', addresses: [SELF] }));
      // Where a connection to another loopback address comes from.
      api.join(tailnetNode({ id: 'laptop', addresses: ['127.0.0.1'] }));
      node = await runService(stage.registry.path, api);
      await until('the instance to be found', async () => (await node.instances.list()).length > 0);
      await until('the service to listen', () => node.service.addresses.length > 0);
      origin = `http://${SELF}:${node.port}`;
      prefix = INSTANCE_PREFIX + ID;
    });
    afterAll(async () => {
      await node.service.close();
      await stage.close();
    });

    test('health and paths are its own', async () => {
      const health = await fetch(`${origin}${prefix}/global/health`);
      expect(await health.json()).toEqual({ healthy: true, version: opencode.version });
      const paths = await fetch(`${origin}${prefix}/path`);
      expect(await paths.json()).toMatchObject({ directory: opencode.directory });
      // Without the service it would be locked.
      expect((await fetch(`${opencode.url}/global/health`)).status).toBe(401);
    });

    test('a turn streams through: prompted and heard by the proxy alone', async () => {
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
      // It arrives while the model still waits.
      await tap.waitFor('message.part.delta', ({ sessionID }) => sessionID === session.id);
      stage.model.release('proxied');
      await tap.waitFor('session.idle', ({ sessionID }) => sessionID === session.id);
      expect((await session.settled()).text).toBe(expectedReply(message));
    });

    test('a terminal of it comes over the WebSocket', async () => {
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

    test('opencode run --attach works against it', async () => {
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

    test('opencode attach works against it: what is typed is answered on the screen', async (context) => {
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
  },
);
