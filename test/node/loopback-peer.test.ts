import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';

import { expect, onTestFinished, test } from 'vitest';

import { kernelSockets, type LoopbackPeerDeps, strangerAtLoopback } from '../../src/node/access/loopback-peer.ts';
import { parseSocketTable, readSocketTable } from '../../src/base/socket-table.ts';
import { until } from '../rig/wait.ts';

const HEAD = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
const OURS = '0100007F:0FFF';
const row = (local: string, remote: string, uid: number, inode: string, state = '01'): string =>
  `   0: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  ${uid}        0 ${inode} 1 0000000000000000 20 4 30 10 -1`;

const deps: LoopbackPeerDeps = {
  tailscaledUid: () => Promise.resolve(0),
  readSockets: () => Promise.resolve([]),
  holders: () => Promise.resolve([]),
};
const tableOf = (...rows: readonly string[]): Partial<LoopbackPeerDeps> => ({
  readSockets: () => Promise.resolve(parseSocketTable([HEAD, ...rows].join('\n'))),
});
const heldBy = (name: string): Partial<LoopbackPeerDeps> => ({ holders: () => Promise.resolve([{ name }]) });

const connection = { localPort: 4095, remotePort: 0x9c40 };
const FAR = '0100007F:9C40';
const accepted = row(OURS, FAR, 1000, '111');
const tailscaled = row(FAR, OURS, 0, '222');
const MAPPED = '0000000000000000FFFF00000100007F';

test.each([
  ['of tailscaled’s user, with a hidden holder', tableOf(accepted, tailscaled)],
  ['of tailscaled’s user, held by tailscaled', { ...tableOf(tailscaled), ...heldBy('tailscaled') }],
  ['half closed, as after the end of a request', tableOf(row(FAR, OURS, 0, '222', '05'))],
  ['of IPv4 addresses mapped into IPv6', tableOf(row(`${MAPPED}:9C40`, `${MAPPED}:0FFF`, 0, '222'))],
])('a socket %s is accepted as tailscaled’s', async (_, more) => {
  expect(await strangerAtLoopback(connection, { ...deps, ...more })).toBeUndefined();
});

test.each([
  ['of another user, on a port that tailscaled has released', tableOf(row(FAR, OURS, 1001, '222')), 'user id 1001'],
  ['that its process has closed, so that root owns it', tableOf(row(FAR, OURS, 0, '0', '05')), 'was closed'],
  [
    'of another program of tailscaled’s user',
    { ...tableOf(tailscaled), ...heldBy('python3') },
    'not held by tailscaled',
  ],
  ['that is missing in the table', tableOf(accepted, row('0200007F:9C40', OURS, 0, '222')), 'was not found'],
  [
    'while tailscaled’s user is unknown',
    { ...tableOf(tailscaled), tailscaledUid: () => Promise.resolve(undefined) },
    'is unknown',
  ],
  ['on a system without the table', { readSockets: () => Promise.resolve(undefined) }, 'does not show'],
])('a socket %s is not accepted as tailscaled’s', async (_, more, reason) => {
  expect(await strangerAtLoopback(connection, { ...deps, ...more })).toContain(reason);
});

test.skipIf(process.platform !== 'linux')(
  'the kernel shows the owner of a connection until its process closes it',
  async () => {
    const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const client = connect(port, '127.0.0.1');
    const [[socket]] = await Promise.all([once(server, 'connection'), once(client, 'connect')]);
    onTestFinished(() => socket.destroy());
    const ports = { localPort: socket.localPort, remotePort: socket.remotePort };
    const uid = process.getuid?.();
    const kernel = { ...kernelSockets, tailscaledUid: () => Promise.resolve(uid) };
    expect(await strangerAtLoopback(ports, kernel)).toContain('not held by tailscaled');
    expect(await strangerAtLoopback(ports, { ...kernel, holders: () => Promise.resolve([]) })).toBeUndefined();
    // The kernel shows a closed socket as root's, so an attacker could send, close, and pass for tailscaled.
    client.end();
    client.destroy();
    await until('the socket to belong to the kernel alone', async () => {
      const problem = await strangerAtLoopback(ports, { ...kernel, holders: () => Promise.resolve([]) });
      return problem?.includes('was closed');
    });
    const rows = (await readSocketTable()) ?? [];
    expect(rows.find(({ local, inode }) => local.port === ports.remotePort && inode === '0')?.uid).toBe(0);
  },
);
