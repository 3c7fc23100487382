import fc from 'fast-check';
import { expect, test } from 'vitest';

import { readTarget } from '../../src/node/proxy/request-target.ts';

const prefix = '/opencode-mcp/v1/i/';
const page = '/opencode-mcp/page/';
const inInstances = (path: string): string => prefix + path;

test.each([
  ['/opencode-mcp/v1/instances', { kind: 'list' }],
  ['/opencode-mcp/v1/instances?x=1', { kind: 'list' }],
  ['/opencode-mcp/v1/states', { kind: 'states' }],
  [`${prefix}a_b-1`, { kind: 'instance', id: 'a_b-1', path: '/', query: '' }],
  ['/', { kind: 'page', file: 'index.html' }],
  ['/opencode-mcp/page/app.js', { kind: 'page', file: 'app.js' }],
  ['/opencode-mcp/page/v1/session?a=b', { kind: 'page', data: 'session', query: '?a=b' }],
  [`${prefix}a/`, { kind: 'instance', id: 'a', path: '/', query: '' }],
  [
    `${prefix}a/session/ses_1?directory=%2Fhome&x=?`,
    { kind: 'instance', id: 'a', path: '/session/ses_1', query: '?directory=%2Fhome&x=?' },
  ],
  [`${prefix}a/find/%C3%A9t%C3%A9`, { kind: 'instance', id: 'a', path: '/find/%C3%A9t%C3%A9', query: '' }],
])('readTarget reads %s', (target, expected) => {
  expect(readTarget(target)).toEqual(expected);
});

test.each([
  [
    'unknown paths',
    ['*', '/session', '/index.html', prefix, '/opencode-mcp/v1/instances/', '/OPENCODE-MCP/v1/instances'],
  ],
  [
    'unknown paths of the page',
    ['', 'index.html', 'v1/nothing', 'v1/fleet/', '../page/app.js'].map((path) => page + path),
  ],
  ['other origins', ['http://127.0.0.1:4095/opencode-mcp/v1/instances', '//opencode-mcp/v1/instances']],
  [
    'dot segments',
    ['../instances', '..%2finstances', '%2e%2e/x', 'a/../b/x', 'a/%2e%2E/b/x', 'a/./x'].map(inInstances),
  ],
  [
    'empty segments and escaped slashes',
    ['a/%2fsession', 'a/x%5c..%5cy', 'a//session', 'a/sess\\ion'].map(inInstances),
  ],
  ['control characters', ['a/session%00', 'a/session%0d%0ax', 'a b/session'].map(inInstances)],
  ['malformed escapes and fragments', ['a/%zz', 'a/%ff', 'a/session#x'].map(inInstances)],
  ['long ids and paths', [`${'a'.repeat(65)}/session`, `a/${'b'.repeat(9000)}`].map(inInstances)],
])('%s are refused', (_, targets) => {
  for (const target of targets) expect.soft(readTarget(target), target).toBeUndefined();
});

test('an accepted path stays below its instance however it is resolved', () => {
  const dots = ['..', '.', '%2e', '%2E%2e', '%252e'];
  const others = ['%2f', '%5c', '\\', '/', '//', 'a', '%61', '?', '%00', ';', '%25'];
  const piece = fc.constantFrom(...dots, ...others);
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      const target = readTarget(`${prefix}a/${pieces.join('')}`);
      if (target?.kind !== 'instance') return;
      expect(target.id).toBe('a');
      const resolved = new URL(target.path, 'http://127.0.0.1').pathname;
      expect(resolved).toBe(target.path);
      expect(decodeURIComponent(target.path).split('/')).not.toContain('..');
    }),
  );
});
