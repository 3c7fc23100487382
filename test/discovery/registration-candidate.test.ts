import { describe, expect, it } from 'vitest';
import { candidateOf } from '../../src/discovery/registry/registration-candidate.ts';
import type { Registration } from '../../src/discovery/registry/registration.ts';

const site = {
  directory: { path: '/srv/registry', ownerUid: 1000 },
  trust: { level: 'trusted' },
  hostname: 'Relay',
} as const;

describe('the candidate of a registration', () => {
  it.each<[name: string, fields: Partial<Registration>, route: string, localPort: number | undefined]>([
    ['this host, same port', { hostname: 'relay', localPort: 5000 }, 'loopback', 5000],
    ['this host in other case', { hostname: 'RELAY' }, 'loopback', 5000],
    ['localhost', { hostname: 'localhost', localPort: 5000 }, 'loopback', 5000],
    ['no host, no local port', {}, 'loopback', 5000],
    ['this host, another port: a tunnel', { hostname: 'relay', localPort: 4096 }, 'relay', 4096],
    ['another host, another port', { hostname: 'laptop', localPort: 4096 }, 'relay', 4096],
    ['another host, same port by chance', { hostname: 'laptop', localPort: 5000 }, 'relay', 5000],
    ['another host, local port unknown', { hostname: 'laptop' }, 'relay', undefined],
  ])('has the right route and local port: %s', (_, fields, route, localPort) => {
    const candidate = candidateOf('a.json', { name: 'a', port: 5000, ...fields }, site);
    expect(candidate.endpoint).toEqual({ url: 'http://127.0.0.1:5000', route, ownerUid: 1000 });
    expect(candidate.claims.localPort).toBe(localPort);
  });

  it('has the claims, with the directory as a label only', () => {
    const claims = { id: 'i1', name: 'a', hostname: 'laptop', connectedAt: 7 };
    const registration = { ...claims, port: 5000, localPort: 4096, cwd: '/x' };
    expect(candidateOf('a.json', registration, site)).toEqual({
      source: 'local-relay',
      key: 'a.json',
      endpoint: { url: 'http://127.0.0.1:5000', route: 'relay', ownerUid: 1000 },
      claims: { ...claims, localPort: 4096, directory: '/x' },
      trust: { level: 'trusted' },
      credential: { password: { kind: 'file', path: '/srv/registry/.credentials/i1', ownerUid: 1000, optional: true } },
    });
  });

  it('has no credential without an id, and none when it is untrusted', () => {
    expect(candidateOf('a.json', { name: 'a', port: 5000 }, site)).not.toHaveProperty('credential');
    const untrusted = { ...site, trust: { level: 'untrusted', reason: 'r' } } as const;
    expect(candidateOf('a.json', { id: 'i1', name: 'a', port: 5000 }, untrusted)).not.toHaveProperty('credential');
  });

  it('has a safe key that is unique to the file name', () => {
    const names = ['a.json', 'a\u0001.json', 'a%01.json', 'a\u0002.json', 'a%2501.json', 'ä.json'];
    const keys = names.map((name) => candidateOf(name, { name: 'a', port: 5000 }, site).key);
    expect(new Set(keys).size).toBe(names.length);
    // oxlint-disable-next-line no-control-regex
    for (const key of keys) expect(key).not.toMatch(/[\u0000-\u001f]/);
    expect(keys[0]).toBe('a.json');
    expect(keys[5]).toBe('ä.json');
  });
});
