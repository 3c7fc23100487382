import type { IncomingHttpHeaders } from 'node:http';

import { expect, test } from 'vitest';

import { guardRequest } from '../../src/node/access/request-guard.ts';
import { tailnetNode } from '../rig/memory-local-api.ts';

// What Node's own parser would refuse before: these must hold with another one, too.

const self = tailnetNode({ id: 'self', addresses: ['100.64.0.1', 'fd7a:115c:a1e0::1'] });

function guard(headers: IncomingHttpHeaders, method = 'GET'): number | undefined {
  const all = { host: 'self', ...headers };
  const headersDistinct = Object.fromEntries(
    Object.entries(all).map(([name, value]) => [name, typeof value === 'string' ? [value] : (value ?? [])]),
  );
  return guardRequest({ headers: all, headersDistinct, method }, self)?.status;
}

test.each<[string, IncomingHttpHeaders, string, number | undefined]>([
  ['a length and chunks', { 'content-length': '4', 'transfer-encoding': 'chunked' }, 'POST', 400],
  ['TRACE', {}, 'TRACE', 405],
  ['CONNECT', {}, 'CONNECT', 405],
  ['a Host with user info', { host: 'self@evil.example' }, 'GET', 421],
  ['a Host with a path', { host: 'self/..' }, 'GET', 421],
  ['a Host with two ports', { host: 'self:1:2' }, 'GET', 421],
  ['an empty Host', { host: '' }, 'GET', 421],
  ['our IPv6 address, written otherwise', { host: '[fd7a:115c:a1e0:0::1]:4095' }, 'GET', undefined],
  ['our name', {}, 'GET', undefined],
])('%s', (_, headers, method, status) => {
  expect(guard(headers, method)).toBe(status);
});
