import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { readTarget } from '../../src/node/proxy/request-target.ts';

const prefix = '/opencode-mcp/v1/i/';

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
])('%s', (target, expected) => {
  expect(readTarget(target)).toEqual(expected);
});

describe('refused', () => {
  test.each([
    '*',
    '/session',
    '/index.html',
    '/opencode-mcp/page/',
    '/opencode-mcp/page/index.html',
    '/opencode-mcp/page/v1/nothing',
    '/opencode-mcp/page/v1/fleet/',
    '/opencode-mcp/page/../page/app.js',
    'http://127.0.0.1:4095/opencode-mcp/v1/instances',
    '//opencode-mcp/v1/instances',
    '/opencode-mcp/v1/instances/',
    '/OPENCODE-MCP/v1/instances',
    prefix,
    `${prefix}../instances`,
    `${prefix}..%2finstances`,
    `${prefix}%2e%2e/x`,
    `${prefix}a/../b/session`,
    `${prefix}a/%2e%2E/b/session`,
    `${prefix}a/./session`,
    `${prefix}a/%2fsession`,
    `${prefix}a/x%5c..%5cy`,
    `${prefix}a//session`,
    `${prefix}a/session%00`,
    `${prefix}a/session%0d%0ax`,
    `${prefix}a/%zz`,
    `${prefix}a/%ff`,
    `${prefix}a b/session`,
    `${prefix}a/session#x`,
    `${prefix}a/sess\\ion`,
    `${prefix}${'a'.repeat(65)}/session`,
    `${prefix}a/${'b'.repeat(9000)}`,
  ])('%s', (target) => {
    expect(readTarget(target)).toBeUndefined();
  });
});

test('an accepted path stays below its instance however it is resolved', () => {
  const piece = fc.constantFrom(
    '..',
    '.',
    '%2e',
    '%2E%2e',
    '%2f',
    '%5c',
    '\\',
    '/',
    '//',
    'a',
    '%61',
    '?',
    '%00',
    ';',
    '%25',
    '%252e',
  );
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
