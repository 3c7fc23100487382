import { describe, expect, it } from 'vitest';
import type { StaticInstance } from '../../src/config/settings.ts';
import type { Scan } from '../../src/discovery/source.ts';
import { createStaticSource } from '../../src/discovery/static.ts';
import { conformance } from './conformance.ts';

const never = new AbortController().signal;

function instance(name: string, url: string, overrides: Partial<StaticInstance> = {}): StaticInstance {
  return { name, url, headers: {}, ...overrides };
}

function scanOf(...instances: readonly StaticInstance[]): Promise<Scan> {
  return createStaticSource({ instances }).scan(never);
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
    ['http://LOCALHOST:4096', 'loopback', 'localhost'],
    ['http://127.example.com:4096', 'url', '127.example.com'],
    ['http://localhost.example.com', 'url', 'localhost.example.com'],
    ['http://128.0.0.1:4096', 'url', '128.0.0.1'],
    ['http://[fd7a::1]:4096', 'url', 'fd7a::1'],
    ['https://box.example/prefix', 'url', 'box.example'],
  ])('gives %s the route %s and the host %s', async (url, route, hostname) => {
    expect(await scanOf(instance('a', url))).toEqual({
      candidates: [
        {
          source: 'static',
          key: 'a',
          endpoint: { url, route, configured: true },
          claims: { name: 'a', hostname },
          trust: { level: 'trusted' },
          pinned: true,
        },
      ],
      notes: [],
    });
  });

  it('passes on headers and the credential, and cleans the name', async () => {
    const credential = { username: 'u', password: { kind: 'value', value: 'p' } } as const;
    const headers = { 'x-team': '1' };
    const { candidates } = await scanOf(instance('a\u001b[1m\nb', 'https://x.example', { headers, credential }));
    expect(candidates).toMatchObject([{ endpoint: { headers }, credential, claims: { name: 'a b' } }]);
  });

  it('notes a port that fetch refuses', async () => {
    const { candidates, notes } = await scanOf(instance('a', 'http://127.0.0.1:6000'));
    expect(candidates).toHaveLength(1);
    expect(notes).toEqual([{ subject: 'a', reason: expect.stringMatching(/port 6000 .*fetch refuses/) }]);
  });
});
