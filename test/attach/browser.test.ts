import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

import { openBrowser, openers } from '../../src/attach/browser.ts';
import { tempDir } from '../rig/temp.ts';

test.each([
  ['darwin', {}, '24.0.0', ['open']],
  ['linux', { DISPLAY: ':0' }, '6.1.0', ['xdg-open']],
  ['linux', { WAYLAND_DISPLAY: 'wayland-0' }, '6.1.0', ['xdg-open']],
  ['linux', {}, '5.15.167.4-microsoft-standard-WSL2', ['wslview', 'xdg-open']],
  // Over SSH, xdg-open would start a text browser.
  ['linux', {}, '6.1.0', []],
] as const)('on %s with %j and the kernel %s the browser is opened by %j', (platform, env, kernel, expected) => {
  expect(openers({ platform, env, kernel })).toEqual(expected);
});

test.each([
  ['succeeds', 0, true],
  ['fails', 3, false],
])('a program that opens the URL and %s', async (_, code, expected) => {
  const temp = tempDir('opencode-mcp-browser');
  onTestFinished(() => temp.close());
  const given = join(temp.path, 'given');
  await writeFile(join(temp.path, 'xdg-open'), `#!/bin/sh\necho "$*" > '${given}'\nexit ${code}\n`, { mode: 0o755 });
  const url = 'http://a.localhost:1/$(x)?a&b';
  const env = { PATH: `${temp.path}:/usr/bin:/bin`, DISPLAY: ':0' };
  expect(await openBrowser(url, { platform: 'linux', env, kernel: '6.1.0' })).toBe(expected);
  expect(await readFile(given, 'utf8')).toBe(`${url}\n`);
});

test('without a program, nothing is opened', async () => {
  const env = { PATH: '/nowhere', DISPLAY: ':0' };
  expect(await openBrowser('http://a.localhost:1/', { platform: 'linux', env, kernel: '6.1.0' })).toBe(false);
});
