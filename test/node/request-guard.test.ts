import type { IncomingHttpHeaders } from 'node:http';

import { expect, test } from 'vitest';

import { guardRequest } from '../../src/node/access/request-guard.ts';
import type { RequestTarget } from '../../src/node/proxy/request-target.ts';
import { tailnetNode } from '../rig/fake/memory-local-api.ts';

const self = tailnetNode({ id: 'self', addresses: ['100.64.0.1', 'fd7a:115c:a1e0::1'] });
const TARGETS: readonly RequestTarget[] = [
  { kind: 'list' },
  { kind: 'instance', id: 'one', path: '/session', query: '?directory=/tmp/evil' },
];

function guard(headers: IncomingHttpHeaders, method: string, target: RequestTarget): number | undefined {
  const allHeaders = { host: 'self', ...headers };
  const headersDistinct = Object.fromEntries(
    Object.entries(allHeaders).map(([name, value]) => [name, typeof value === 'string' ? [value] : (value ?? [])]),
  );
  return guardRequest({ headers: allHeaders, headersDistinct, method }, self, target)?.status;
}

test.each<[string, IncomingHttpHeaders, number | undefined]>([
  // Node's parser refuses this too, but another parser may not.
  ['both a length and chunks', { 'content-length': '4', 'transfer-encoding': 'chunked' }, 400],
  ['a Host that another DNS name resolves to', { host: 'evil.example' }, 421],
  ['a Host that only begins with our name', { host: 'self.tail0.ts.net.evil.example' }, 421],
  ['a Host with user info', { host: 'self.tail0.ts.net@evil.example' }, 421],
  ['a Host with a path', { host: 'self/..' }, 421],
  ['a Host with two ports', { host: 'self:1:2' }, 421],
  ['an empty Host', { host: '' }, 421],
  ['another address of this machine', { host: '127.0.0.1:4095' }, 421],
  ['another origin', { origin: 'https://evil.example' }, 403],
  ['an opaque origin', { origin: 'null' }, 403],
  ['our name with another port as origin', { origin: 'http://self:1' }, 403],
  ['a browser that sends no Origin', { 'user-agent': 'Mozilla/5.0 (X11; Linux x86_64)' }, 403],
  ['a browser request from another site', { 'sec-fetch-site': 'cross-site' }, 403],
  ['our host name', {}, undefined],
  ['our tailnet name, with its origin', { host: 'SELF.tail0.ts.net', origin: 'http://self.tail0.ts.net' }, undefined],
  ['our tailnet name and port', { host: 'self.tail0.ts.net:4095' }, undefined],
  ['our tailnet name with a final dot', { host: 'self.tail0.ts.net.' }, undefined],
  ['our address', { host: '100.64.0.1' }, undefined],
  ['our IPv6 address in another form', { host: '[fd7a:115c:a1e0:0::1]:4095' }, undefined],
])('guardRequest for %s, with the headers %j, gives the status %s', (_, headers, status) => {
  for (const target of TARGETS) expect(guard(headers, 'GET', target)).toBe(status);
});

test.each(['TRACE', 'CONNECT'])('guardRequest refuses the method %s', (method) => {
  expect(guard({}, method, { kind: 'list' })).toBe(405);
});
