import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';

import { describe, expect, onTestFinished, test } from 'vitest';

import { kernelSockets, type LoopbackPeerDeps, strangerAtLoopback } from '../../src/node/access/loopback-peer.ts';
import { parseSocketTable, readSocketTable } from '../../src/base/socket-table.ts';
import { until } from '../rig/wait.ts';

const HEAD = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
const OURS = '0100007F:0FFF';
const row = (local: string, remote: string, uid: number, inode: string, state = '01'): string =>
  `   0: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  ${uid}        0 ${inode} 1 0000000000000000 20 4 30 10 -1`;

function deps(rows: readonly string[], more: Partial<LoopbackPeerDeps> = {}): LoopbackPeerDeps {
  return {
    tailscaledUid: () => Promise.resolve(0),
    readSockets: () => Promise.resolve(parseSocketTable([HEAD, ...rows].join('\n'))),
    holders: () => Promise.resolve([]),
    ...more,
  };
}

const connection = { localPort: 4095, remotePort: 0x9c40 };
const theirs = '0100007F:9C40';
const accepted = row(OURS, theirs, 1000, '111');

describe('held by tailscaled', () => {
  test.each([
    ['of its user, its holder out of sight', deps([accepted, row(theirs, OURS, 0, '222')])],
    [
      'of its user and held by it',
      deps([row(theirs, OURS, 0, '222')], { holders: () => Promise.resolve([{ name: 'tailscaled' }]) }),
    ],
    ['half closed, as after the end of a request', deps([row(theirs, OURS, 0, '222', '05')])],
    [
      'as IPv6 sees IPv4',
      deps([row('0000000000000000FFFF00000100007F:9C40', '0000000000000000FFFF00000100007F:0FFF', 0, '222')]),
    ],
  ])('%s', async (_, given) => {
    expect(await strangerAtLoopback(connection, given)).toBeUndefined();
  });
});

describe('held by another process', () => {
  test.each([
    [
      'another user’s, on the port that tailscaled used before',
      deps([row(theirs, OURS, 1001, '222')]),
      'belongs to user id 1001',
    ],
    ['closed by its process, so that it shows as root’s', deps([row(theirs, OURS, 0, '0', '05')]), 'was closed'],
    [
      'held by another program of that user',
      deps([row(theirs, OURS, 0, '222')], { holders: () => Promise.resolve([{ name: 'python3' }]) }),
      'not held by tailscaled',
    ],
    ['not in the table', deps([accepted, row('0200007F:9C40', OURS, 0, '222')]), 'was not found'],
    [
      'where nobody knows tailscaled’s user',
      deps([row(theirs, OURS, 0, '222')], { tailscaledUid: () => Promise.resolve(undefined) }),
      'is unknown',
    ],
    ['where there is no table', deps([], { readSockets: () => Promise.resolve(undefined) }), 'does not show'],
  ])('%s', async (_, given, reason) => {
    expect(await strangerAtLoopback(connection, given)).toContain(reason);
  });
});

describe.skipIf(process.platform !== 'linux')('the kernel', () => {
  test('shows whose a connection is until its process closes it', async () => {
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
    // This is how a thief would pass for root: send, close, and leave the socket to the kernel.
    client.end();
    client.destroy();
    const reason = await until('the kernel to have the socket alone', async () => {
      const problem = await strangerAtLoopback(ports, { ...kernel, holders: () => Promise.resolve([]) });
      return problem?.includes('closed') === true && problem;
    });
    expect(reason).toContain('was closed');
    const rows = (await readSocketTable()) ?? [];
    expect(rows.find(({ local, inode }) => local.port === ports.remotePort && inode === '0')?.uid).toBe(0);
  });
});
