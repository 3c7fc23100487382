import { describe, expect, it } from 'vitest';
import type { StaticInstance } from '../../src/config/settings.ts';
import { createStaticSource } from '../../src/discovery/static.ts';
import { conformance } from './conformance.ts';

const never = new AbortController().signal;

function instance(name: string, url: string, more: Partial<StaticInstance> = {}): StaticInstance {
  return { name, url, headers: {}, ...more };
}

conformance({
  name: 'static',
  working: async () => ({
    source: createStaticSource({
      instances: [instance('a', 'http://127.0.0.1:4096'), instance('b', 'https://box.example/prefix')],
    }),
    keys: ['a', 'b'],
    [Symbol.asyncDispose]: async () => {},
  }),
});

describe('the static source', () => {
  it.each([
    ['http://127.0.0.1:4096', 'loopback', '127.0.0.1'],
    ['http://127.9.9.9:4096', 'loopback', '127.9.9.9'],
    ['http://2130706433:4096', 'loopback', '127.0.0.1'],
    ['http://[::1]:4096', 'loopback', '::1'],
    ['http://localhost:4096', 'loopback', 'localhost'],
    ['http://LOCALHOST:4096', 'loopback', 'localhost'],
    ['http://127.example.com:4096', 'url', '127.example.com'],
    ['http://localhost.example.com', 'url', 'localhost.example.com'],
    ['http://128.0.0.1:4096', 'url', '128.0.0.1'],
    ['http://[fd7a::1]:4096', 'url', 'fd7a::1'],
    ['https://box.example/prefix', 'url', 'box.example'],
  ])('gives %s the route %s and the host %s', async (url, route, hostname) => {
    const { candidates, notes } = await createStaticSource({ instances: [instance('a', url)] }).scan(never);
    expect(candidates).toEqual([
      {
        source: 'static',
        key: 'a',
        endpoint: { url, route, configured: true },
        claims: { name: 'a', hostname },
        trust: { level: 'trusted' },
        pinned: true,
      },
    ]);
    expect(notes).toEqual([]);
  });

  it('passes on headers and the credential', async () => {
    const credential = { username: 'u', password: { kind: 'value', value: 'p' } } as const;
    const { candidates } = await createStaticSource({
      instances: [instance('a', 'https://x.example', { headers: { 'x-team': '1' }, credential })],
    }).scan(never);
    expect(candidates[0]).toMatchObject({ endpoint: { headers: { 'x-team': '1' } }, credential });
  });

  it('notes a port that fetch refuses', async () => {
    const { candidates, notes } = await createStaticSource({
      instances: [instance('a', 'http://127.0.0.1:6000')],
    }).scan(never);
    expect(candidates).toHaveLength(1);
    expect(notes).toEqual([{ subject: 'a', reason: expect.stringMatching(/port 6000 .*fetch refuses/) }]);
  });

  it('cleans a name', async () => {
    const { candidates } = await createStaticSource({
      instances: [instance('a\u001b[1m\nb', 'http://127.0.0.1:1024')],
    }).scan(never);
    expect(candidates[0]?.claims.name).toBe('a b');
  });
});
