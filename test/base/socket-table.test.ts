import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

import { expect, onTestFinished, test } from 'vitest';

import { kernelAddress, parseLsof, readListeners } from '../../src/base/socket-table.ts';

test.each([
  ['127.0.0.1', '0100007F'],
  ['0.0.0.0', '00000000'],
  ['::', '0'.repeat(32)],
  ['::1', '00000000000000000000000001000000'],
  ['::ffff:127.0.0.1', '0000000000000000FFFF00000100007F'],
  ['::ffff:7f00:1', '0000000000000000FFFF00000100007F'],
  ['fe80::1:2%eth0', '000080FE000000000000000002000100'],
  ['2001:db8:1:2:3:4:5:6', 'B80D0120020001000400030006000500'],
])('the kernel writes %s as %s on a little-endian machine', (address, written) => {
  expect(kernelAddress(address)).toBe(written);
});

test('parseLsof() reads the output of lsof -Fpcutn on macOS', () => {
  const text =
    'p1234\ncopencode\nu501\nf21\ntIPv4\nn127.0.0.1:4096\nf22\ntIPv6\nn*:4097\np1300\ncsshd\nu0\nf5\ntIPv6\nn[::1]:631\nf6\ntIPv4\nn*:22\n';
  expect(
    parseLsof(text).map(({ local, uid, holder }) => [local.address, local.port, uid, holder?.pid, holder?.name]),
  ).toEqual([
    [kernelAddress('127.0.0.1'), 4096, 501, 1234, 'opencode'],
    [kernelAddress('::'), 4097, 501, 1234, 'opencode'],
    [kernelAddress('::1'), 631, 0, 1300, 'sshd'],
    [kernelAddress('0.0.0.0'), 22, 0, 1300, 'sshd'],
  ]);
});

test.skipIf(process.platform !== 'linux')(
  'readListeners() finds every listening socket, even over several pages',
  async () => {
    // At 150 characters a row, the table takes several pages, which the kernel returns one at a time.
    const ports = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const server = createServer().listen(0, index % 2 === 0 ? '127.0.0.1' : '::1');
        onTestFinished(() => void server.close());
        await once(server, 'listening');
        return (server.address() as AddressInfo).port;
      }),
    );
    const listeners = await readListeners();
    expect(listeners?.every(({ listening }) => listening)).toBe(true);
    const foundPorts = new Set(listeners?.map(({ local }) => local.port));
    expect(ports.filter((port) => !foundPorts.has(port))).toEqual([]);
  },
);
