import { expect, test } from 'vitest';

import type { Place } from '../../src/setup/clients.ts';
import { ownCommand } from '../../src/setup/command.ts';

/** Our command on such a machine; `links` maps each link to the file at its end. */
function commandFor(
  execPath: string,
  script: string,
  path: string,
  links: Readonly<Record<string, string>> = {},
): ReturnType<typeof ownCommand> {
  const place: Place = { home: '/home/ada', platform: 'linux', env: { PATH: path } };
  return ownCommand({ execPath, script, place, realPath: (file) => links[file] ?? file });
}

const NVM = '/home/ada/.nvm/versions/node/v22.3.0/bin';
const SCRIPT = '/src/opencode-mcp.js';

test('a system Node and a global install are named by their paths on PATH', () => {
  const links = { '/usr/local/bin/opencode-mcp': '/src/opencode-mcp/dist/opencode-mcp.js' };
  expect(commandFor('/usr/bin/node', '/usr/local/bin/opencode-mcp', '/usr/local/bin:/usr/bin', links)).toEqual({
    words: ['/usr/bin/node', '/usr/local/bin/opencode-mcp'],
    warnings: [],
  });
});

test.each([
  ["Homebrew's link", '/opt/homebrew/Cellar/node/22.1.0_1/bin/node', '/opt/homebrew/bin'],
  ["the link of Nix's profile", '/nix/store/abc-nodejs-22.3.0/bin/node', '/run/current-system/sw/bin'],
])('%s is used, not the folder of the version', (_, node, bin) => {
  expect(commandFor(node, SCRIPT, bin, { [`${bin}/node`]: node })).toEqual({
    words: [`${bin}/node`, SCRIPT],
    warnings: [],
  });
});

test("with nvm, the program's path in the checkout is used, and a warning says that Node moves with its version", () => {
  const links = { [`${NVM}/opencode-mcp`]: '/home/ada/opencode-mcp/dist/opencode-mcp.js' };
  expect(commandFor(`${NVM}/node`, `${NVM}/opencode-mcp`, NVM, links)).toEqual({
    words: [`${NVM}/node`, '/home/ada/opencode-mcp/dist/opencode-mcp.js'],
    warnings: [`Node is at ${NVM}/node: after each update of Node, run init again`],
  });
});

test('with fnm, the folder of one shell is not used', () => {
  const shell = '/run/user/1000/fnm_multishells/12_34/bin';
  const real = '/home/ada/.local/share/fnm/node-versions/v22.3.0/installation';
  const program = `${real}/lib/node_modules/opencode-mcp/dist/opencode-mcp.js`;
  const links = { [`${shell}/node`]: `${real}/bin/node`, [`${shell}/opencode-mcp`]: program };
  const { words, warnings } = commandFor(`${real}/bin/node`, `${shell}/opencode-mcp`, shell, links);
  expect(words).toEqual([`${real}/bin/node`, program]);
  expect(warnings).toHaveLength(2);
});

test('a snap without another path causes a warning about its revision', () => {
  expect(commandFor('/snap/node/10432/bin/node', SCRIPT, '').warnings).toHaveLength(1);
});

test('a Node of another version on PATH is not used', () => {
  expect(commandFor(`${NVM}/node`, SCRIPT, '/usr/bin').words).toEqual([`${NVM}/node`, SCRIPT]);
});

test('a program in a temporary place causes a warning', () => {
  expect(commandFor('/usr/bin/node', '/tmp/x/opencode-mcp.js', '').warnings).toEqual([
    'opencode-mcp is in a temporary place, /tmp/x/opencode-mcp.js: install it, and run init from there',
  ]);
});
