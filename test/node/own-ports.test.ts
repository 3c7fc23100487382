import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';

import { expect, onTestFinished, test } from 'vitest';

import { OwnPorts } from '../../src/node/access/own-ports.ts';
import type { SocketRow } from '../../src/base/socket-table.ts';

const UID = 1000;
const LOOPBACK = '0100007F';

function listener(
  port: number,
  { uid = UID, inode = '7', address = LOOPBACK, listening = true, lsof = '' } = {},
): SocketRow {
  const holder = { pid: 1, name: lsof, link: '' };
  return {
    ...(lsof !== '' && { holder }),
    local: { address, port },
    remote: { address: '00000000', port: 0 },
    listening,
    uid,
    inode,
  };
}

function ports(rows: readonly SocketRow[], names: readonly string[] = ['opencode']): OwnPorts {
  return new OwnPorts(UID, {
    readSockets: () => Promise.resolve(rows),
    holders: () => Promise.resolve(names.map((name) => ({ pid: 1, name, link: `/proc/1/fd/${name}` }))),
    stillHeld: () => false,
  });
}

test.each([
  ['it listens on loopback', listener(4096)],
  ['it listens on every address', listener(4096, { address: '00000000' })],
  ['it listens on every IPv6 address', listener(4096, { address: '0'.repeat(32) })],
  ['lsof names opencode as its holder', listener(4096, { lsof: 'opencode' })],
])('a port is ours: %s', async (_, row) => {
  expect(await ports([row]).ours([{ port: 4096 }, { port: 4097 }])).toEqual([{ port: 4096 }]);
});

test.each<[string, SocketRow[], string[]?]>([
  ['no socket listens', [listener(4096, { listening: false })]],
  ['another user listens', [listener(4096, { uid: 1001 })]],
  ['another user listens too', [listener(4096), listener(4096, { uid: 1001, inode: '8', address: '00000000' })]],
  ['it listens on another address', [listener(4096, { address: '0200007F' })]],
  ['lsof names sshd as its holder', [listener(4096, { lsof: 'sshd' })]],
  ['no process holds it any more', [listener(4096, { inode: '0' })]],
  ['sshd holds it for a tunnel', [listener(4096)], ['sshd']],
  ['a session of sshd holds it for a tunnel', [listener(4096)], ['sshd-session']],
  ['its holder is hidden, as sshd is from the user it serves', [listener(4096)], []],
])('a port is not ours: %s', async (_, rows, names) => {
  expect(await ports(rows, names).ours([{ port: 4096 }])).toEqual([]);
});

test('a claim with a pid is ours only while that process holds the port', async () => {
  const ownPorts = new OwnPorts(UID, {
    readSockets: () => Promise.resolve([listener(4096)]),
    holders: () => Promise.resolve([7, 8].map((pid) => ({ pid, name: 'opencode', link: `/proc/${pid}/fd/3` }))),
    stillHeld: () => true,
  });
  for (const pid of [7, 8]) expect(await ownPorts.ours([{ port: 4096, pid }])).toEqual([{ port: 4096, pid }]);
  expect(await ownPorts.ours([{ port: 4096 }])).toEqual([{ port: 4096 }]);
  expect(await ownPorts.ours([{ port: 4096, pid: 9 }])).toEqual([]);
});

test('the socket table is read again only when a socket found in it is gone', async () => {
  let reads = 0;
  let held = true;
  let uid = UID;
  const ownPorts = new OwnPorts(UID, {
    readSockets: () => {
      reads += 1;
      return Promise.resolve([listener(4096, { uid }), listener(4097, { inode: '8' })]);
    },
    holders: (inode) => Promise.resolve([{ pid: 1, name: 'opencode', link: `/proc/1/fd/${inode}` }]),
    stillHeld: (link, inode) => link === `/proc/1/fd/${inode}` && (held || inode === '8'),
  });
  expect(await ownPorts.ours([{ port: 4096 }, { port: 4097 }])).toEqual([{ port: 4096 }, { port: 4097 }]);
  expect(await ownPorts.ours([{ port: 4097 }])).toEqual([{ port: 4097 }]);
  expect(await ownPorts.ours([{ port: 4096 }])).toEqual([{ port: 4096 }]);
  expect(reads).toBe(1);
  held = false;
  uid = 1001;
  expect(await ownPorts.ours([{ port: 4096 }, { port: 4097 }])).toEqual([{ port: 4097 }]);
  expect(reads).toBe(2);
  expect(await ownPorts.ours([{ port: 4096 }])).toEqual([]);
});

test.skipIf(process.platform !== 'linux')('a listener of this process is ours until it closes', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const ownPorts = new OwnPorts(process.getuid?.() ?? 0);
  expect(await ownPorts.ours([{ port }])).toEqual([{ port }]);
  expect(await ownPorts.ours([{ port }])).toEqual([{ port }]);
  expect(await new OwnPorts(65_533).ours([{ port }])).toEqual([]);
  server.close();
  await once(server, 'close');
  expect(await ownPorts.ours([{ port }])).toEqual([]);
});
