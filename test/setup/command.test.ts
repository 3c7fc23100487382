import { expect, test } from 'vitest';

import type { Place } from '../../src/setup/clients.ts';
import { ownCommand } from '../../src/setup/command.ts';

/** Paths and the files at the end of their links. */
type Links = Readonly<Record<string, string>>;

function words(execPath: string, script: string, path: string, links: Links): ReturnType<typeof ownCommand> {
  const place: Place = { home: '/home/ada', platform: 'linux', env: { PATH: path } };
  return ownCommand({ execPath, script, place, realPath: (file) => links[file] });
}

test('a system Node and a global install: their paths on PATH', () => {
  const links = {
    '/usr/bin/node': '/usr/bin/node',
    '/usr/local/bin/opencode-mcp': '/src/opencode-mcp/dist/opencode-mcp.js',
  };
  expect(words('/usr/bin/node', '/usr/local/bin/opencode-mcp', '/usr/local/bin:/usr/bin', links)).toEqual({
    words: ['/usr/bin/node', '/usr/local/bin/opencode-mcp'],
    warnings: [],
  });
});

test("Homebrew: its link, not the version's folder", () => {
  const cellar = '/opt/homebrew/Cellar/node/22.1.0_1/bin/node';
  const links = {
    [cellar]: cellar,
    '/opt/homebrew/bin/node': cellar,
    '/opt/homebrew/bin/opencode-mcp': '/opt/homebrew/lib/node_modules/opencode-mcp/dist/opencode-mcp.js',
  };
  expect(words(cellar, '/opt/homebrew/bin/opencode-mcp', '/opt/homebrew/bin', links)).toEqual({
    words: ['/opt/homebrew/bin/node', '/opt/homebrew/bin/opencode-mcp'],
    warnings: [],
  });
});

test("nvm: the program's path in the checkout, and a warning that Node moves with its version", () => {
  const bin = '/home/ada/.nvm/versions/node/v22.3.0/bin';
  const links = {
    [`${bin}/node`]: `${bin}/node`,
    [`${bin}/opencode-mcp`]: '/home/ada/opencode-mcp/dist/opencode-mcp.js',
  };
  expect(words(`${bin}/node`, `${bin}/opencode-mcp`, bin, links)).toEqual({
    words: [`${bin}/node`, '/home/ada/opencode-mcp/dist/opencode-mcp.js'],
    warnings: [`Node is at ${bin}/node: after each update of Node, run init again`],
  });
});

test('fnm: not the folder of one shell', () => {
  const shell = '/run/user/1000/fnm_multishells/12_34/bin';
  const real = '/home/ada/.local/share/fnm/node-versions/v22.3.0/installation';
  const links = {
    [`${real}/bin/node`]: `${real}/bin/node`,
    [`${shell}/node`]: `${real}/bin/node`,
    [`${shell}/opencode-mcp`]: `${real}/lib/node_modules/opencode-mcp/dist/opencode-mcp.js`,
  };
  const { words: found, warnings } = words(`${real}/bin/node`, `${shell}/opencode-mcp`, shell, links);
  expect(found).toEqual([`${real}/bin/node`, `${real}/lib/node_modules/opencode-mcp/dist/opencode-mcp.js`]);
  expect(warnings).toHaveLength(2);
});

test("Nix: the profile's link, not the store", () => {
  const store = '/nix/store/abc-nodejs-22.3.0/bin/node';
  const links = {
    [store]: store,
    '/run/current-system/sw/bin/node': store,
    '/src/opencode-mcp.js': '/src/opencode-mcp.js',
  };
  expect(words(store, '/src/opencode-mcp.js', '/run/current-system/sw/bin', links)).toEqual({
    words: ['/run/current-system/sw/bin/node', '/src/opencode-mcp.js'],
    warnings: [],
  });
});

test('a snap without another path: a warning about its revision', () => {
  const links = {
    '/snap/node/10432/bin/node': '/snap/node/10432/bin/node',
    '/src/opencode-mcp.js': '/src/opencode-mcp.js',
  };
  expect(words('/snap/node/10432/bin/node', '/src/opencode-mcp.js', '', links).warnings).toHaveLength(1);
});

test('a Node of another version on PATH is not used', () => {
  const own = '/home/ada/.nvm/versions/node/v22.3.0/bin/node';
  const links = { [own]: own, '/usr/bin/node': '/usr/bin/node', '/src/opencode-mcp.js': '/src/opencode-mcp.js' };
  expect(words(own, '/src/opencode-mcp.js', '/usr/bin', links).words).toEqual([own, '/src/opencode-mcp.js']);
});

test('a program in a temporary place: a warning', () => {
  const links = { '/usr/bin/node': '/usr/bin/node', '/tmp/x/opencode-mcp.js': '/tmp/x/opencode-mcp.js' };
  expect(words('/usr/bin/node', '/tmp/x/opencode-mcp.js', '', links).warnings).toEqual([
    'opencode-mcp is in a temporary place, /tmp/x/opencode-mcp.js: install it, and run init from there',
  ]);
});
