import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';

import { isOwnPeer } from '../../src/attach/own-peer.ts';
import { needRoot } from '../discovery/as-root.ts';
import { STRANGER_UID } from '../rig/stranger.ts';
import { within } from '../rig/wait.ts';

const CONNECT = `
const socket = require('node:net').connect(Number(process.argv[1]), '127.0.0.1');
process.stdin.on('end', () => process.exit()).resume();
`;

async function listen() {
  const server = createServer();
  const accepted = once(server, 'connection').then(([socket]: Socket[]) => socket as Socket);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return { port: (server.address() as AddressInfo).port, accepted };
}

test('accepts a program of this user until it closes its socket, which the kernel then shows as root’s', async () => {
  const { port, accepted } = await listen();
  const near = connect(port, '127.0.0.1');
  const far = await accepted;
  onTestFinished(() => void far.destroy());
  expect(await isOwnPeer(far)).toBe(true);
  const ended = once(far.resume(), 'end');
  near.destroy();
  await within(ended, 'the connection to end');
  expect(await isOwnPeer(far)).toBe(false);
});

test('refuses another user’s program', async (context) => {
  needRoot(context);
  const { port, accepted } = await listen();
  const stranger = spawn(process.execPath, ['-e', CONNECT, String(port)], {
    uid: STRANGER_UID,
    gid: STRANGER_UID,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  onTestFinished(() => void stranger.stdin.end());
  const far = await within(accepted, 'the stranger to connect');
  onTestFinished(() => void far.destroy());
  expect(await isOwnPeer(far)).toBe(false);
});
