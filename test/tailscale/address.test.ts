import { describe, expect, it } from 'vitest';

import { type AddressSystem, localApiAddress, shownAddress } from '../../src/tailscale/address.ts';

/** A system on which only these paths exist; `lsofOutput` undefined makes lsof fail. */
function system(
  platform: NodeJS.Platform,
  existing: readonly string[],
  files: { readonly [path: string]: string } = {},
  lsofOutput?: string,
): AddressSystem {
  const readOrThrow = (text: string | undefined): string => {
    if (text === undefined) throw new Error('ENOENT');
    return text;
  };
  return {
    platform,
    exists: (path) => existing.includes(path),
    readLink: (path) => readOrThrow(files[path]),
    readText: (path) => readOrThrow(files[path]),
    appFiles: () => readOrThrow(lsofOutput),
  };
}

const SOCKET = '/var/run/tailscale/tailscaled.sock';
const SYNOLOGY = '/var/packages/Tailscale/var/tailscaled.sock';
const BSD = '/var/run/tailscaled.socket';
const MAC_APP = '/Applications/Tailscale.app';
const PORT_LINK = '/Library/Tailscale/ipnport';
const APP = { [PORT_LINK]: '49180', '/Library/Tailscale/sameuserproof-49180': 'proof\n' };

describe('localApiAddress', () => {
  it.each([
    { name: 'Linux', addressSystem: system('linux', [SOCKET, SYNOLOGY]), path: SOCKET },
    { name: 'Linux without tailscaled', addressSystem: system('linux', []), path: SOCKET },
    { name: 'Synology', addressSystem: system('linux', [SYNOLOGY]), path: SYNOLOGY },
    { name: 'FreeBSD', addressSystem: system('freebsd', []), path: BSD },
    { name: 'macOS, the daemon before the app', addressSystem: system('darwin', [BSD], APP), path: BSD },
    { name: 'macOS without either', addressSystem: system('darwin', []), path: BSD },
    {
      name: 'macOS, a port without its token',
      addressSystem: system('darwin', [], { [PORT_LINK]: '49180' }),
      path: BSD,
    },
    {
      name: 'macOS, an App Store build without a port',
      addressSystem: system(
        'darwin',
        [MAC_APP],
        {},
        'p77\nfcwd\nn/\nn/private/sameuserproof-99999-abc\nn/x/sameuserproof-1\n',
      ),
      path: BSD,
    },
    {
      name: 'Windows',
      addressSystem: system('win32', []),
      path: '\\\\.\\pipe\\ProtectedPrefix\\Administrators\\Tailscale\\tailscaled',
    },
  ])('returns the socket on $name', ({ addressSystem, path }) => {
    expect(localApiAddress(undefined, addressSystem)).toEqual({ kind: 'socket', path });
  });

  it('reads no token for an invalid port', () => {
    const readPaths: string[] = [];
    const addressSystem = {
      ...system('darwin', [], { [PORT_LINK]: '../1' }),
      readText: (path: string) => (readPaths.push(path), 'x'),
    };
    expect(localApiAddress(undefined, addressSystem)).toEqual({ kind: 'socket', path: BSD });
    expect(readPaths).toEqual([]);
  });

  it('returns the override if there is one', () => {
    expect(localApiAddress('/x.sock', system('darwin', [], APP))).toEqual({ kind: 'socket', path: '/x.sock' });
  });

  it("returns the port of the App Store build's open file if there is no other address", () => {
    const folder = '/Users/ada/Library/Group Containers/W5364U7YZB.io.tailscale.ipn.macos';
    const open = `p812\nfcwd\nn/\nf4\nn${folder}/sameuserproof-49213-0123456789abcdef\nf5\nn/dev/null\n`;
    const address = localApiAddress(undefined, system('darwin', [MAC_APP], {}, open));
    expect(address).toEqual({ kind: 'port', port: 49_213, token: '0123456789abcdef' });
    expect(localApiAddress(undefined, system('darwin', [], {}, open))).toMatchObject({ kind: 'socket' });
    expect(localApiAddress(undefined, system('darwin', [MAC_APP], APP, open))).toMatchObject({ port: 49_180 });
    expect(localApiAddress(undefined, system('linux', [MAC_APP], {}, open))).toMatchObject({ kind: 'socket' });
  });

  it("returns the macOS app's port, which shownAddress() shows without its token", () => {
    const address = localApiAddress(undefined, system('darwin', [], APP));
    expect(address).toEqual({ kind: 'port', port: 49_180, token: 'proof' });
    expect(shownAddress(address)).toBe('127.0.0.1:49180');
  });
});
