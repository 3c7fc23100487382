import { describe, expect, it } from 'vitest';

import { type AddressSystem, localApiAddress, shownAddress } from '../../src/tailscale/address.ts';

/** A system on which only these paths exist; `open` is the output of lsof. */
function system(
  platform: NodeJS.Platform,
  existing: readonly string[],
  files: { readonly [path: string]: string } = {},
  open?: string,
): AddressSystem {
  const read = (found: string | undefined): string => {
    if (found === undefined) throw new Error('ENOENT');
    return found;
  };
  return {
    platform,
    exists: (path) => existing.includes(path),
    readLink: (path) => read(files[path]),
    readText: (path) => read(files[path]),
    appFiles: () => read(open),
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
    { name: 'Linux', given: system('linux', [SOCKET, SYNOLOGY]), path: SOCKET },
    { name: 'Linux without tailscaled', given: system('linux', []), path: SOCKET },
    { name: 'Synology', given: system('linux', [SYNOLOGY]), path: SYNOLOGY },
    { name: 'FreeBSD', given: system('freebsd', []), path: BSD },
    { name: 'macOS, the daemon before the app', given: system('darwin', [BSD], APP), path: BSD },
    { name: 'macOS without either', given: system('darwin', []), path: BSD },
    { name: 'macOS, a port without its token', given: system('darwin', [], { [PORT_LINK]: '49180' }), path: BSD },
    {
      name: 'macOS, an App Store build without a port',
      given: system('darwin', [MAC_APP], {}, 'p77\nfcwd\nn/\nn/private/sameuserproof-99999-abc\nn/x/sameuserproof-1\n'),
      path: BSD,
    },
    {
      name: 'Windows',
      given: system('win32', []),
      path: '\\\\.\\pipe\\ProtectedPrefix\\Administrators\\Tailscale\\tailscaled',
    },
  ])('$name', ({ given, path }) => {
    expect(localApiAddress(undefined, given)).toEqual({ kind: 'socket', path });
  });

  it('reads no token for an invalid port', () => {
    const read: string[] = [];
    const given = {
      ...system('darwin', [], { [PORT_LINK]: '../1' }),
      readText: (path: string) => (read.push(path), 'x'),
    };
    expect(localApiAddress(undefined, given)).toEqual({ kind: 'socket', path: BSD });
    expect(read).toEqual([]);
  });

  it('is the override, if there is one', () => {
    expect(localApiAddress('/x.sock', system('darwin', [], APP))).toEqual({ kind: 'socket', path: '/x.sock' });
  });

  it("is from the App Store build's open file, if there is no other", () => {
    const folder = '/Users/ada/Library/Group Containers/W5364U7YZB.io.tailscale.ipn.macos';
    const open = `p812\nfcwd\nn/\nf4\nn${folder}/sameuserproof-49213-0123456789abcdef\nf5\nn/dev/null\n`;
    const address = localApiAddress(undefined, system('darwin', [MAC_APP], {}, open));
    expect(address).toEqual({ kind: 'port', port: 49_213, token: '0123456789abcdef' });
    expect(localApiAddress(undefined, system('darwin', [], {}, open))).toMatchObject({ kind: 'socket' });
    expect(localApiAddress(undefined, system('darwin', [MAC_APP], APP, open))).toMatchObject({ port: 49_180 });
    expect(localApiAddress(undefined, system('linux', [MAC_APP], {}, open))).toMatchObject({ kind: 'socket' });
  });

  it("is the macOS app's port, shown without its token", () => {
    const address = localApiAddress(undefined, system('darwin', [], APP));
    expect(address).toEqual({ kind: 'port', port: 49_180, token: 'proof' });
    expect(shownAddress(address)).toBe('127.0.0.1:49180');
  });
});
