import { describe, expect, it } from 'vitest';
import { candidateOf } from '../../src/discovery/registry/registration-candidate.ts';
import type { Registration } from '../../src/discovery/registry/registration.ts';

const site = {
  directory: { path: '/srv/registry', ownerUid: 1000 },
  trust: { level: 'trusted' },
  hostname: 'Relay',
} as const;

describe('the candidate of a registration', () => {
  const routes: readonly {
    name: string;
    fields: Partial<Registration>;
    route: string;
    localPort: number | undefined;
  }[] = [
    { name: 'our host, same port', fields: { hostname: 'relay', localPort: 5000 }, route: 'loopback', localPort: 5000 },
    { name: 'our host in other case', fields: { hostname: 'RELAY' }, route: 'loopback', localPort: 5000 },
    { name: 'localhost', fields: { hostname: 'localhost', localPort: 5000 }, route: 'loopback', localPort: 5000 },
    { name: 'no host, no local port', fields: {}, route: 'loopback', localPort: 5000 },
    { name: 'no host, same port', fields: { localPort: 5000 }, route: 'loopback', localPort: 5000 },
    {
      name: 'our host, another port: a tunnel',
      fields: { hostname: 'relay', localPort: 4096 },
      route: 'relay',
      localPort: 4096,
    },
    {
      name: 'another host, another port',
      fields: { hostname: 'laptop', localPort: 4096 },
      route: 'relay',
      localPort: 4096,
    },
    {
      name: 'another host, same port by chance',
      fields: { hostname: 'laptop', localPort: 5000 },
      route: 'relay',
      localPort: 5000,
    },
    { name: 'another host, local port unknown', fields: { hostname: 'laptop' }, route: 'relay', localPort: undefined },
  ];
  it.each(routes)('$name: $route', ({ fields, route, localPort }) => {
    const candidate = candidateOf('a.json', { name: 'a', port: 5000, ...fields }, site);
    expect(candidate.endpoint).toEqual({ url: 'http://127.0.0.1:5000', route, ownerUid: 1000 });
    expect(candidate.claims.localPort).toBe(localPort);
  });

  it('has the claims, with the directory as a label only', () => {
    const registration = {
      id: 'i1',
      name: 'a',
      hostname: 'laptop',
      port: 5000,
      localPort: 4096,
      cwd: '/x',
      connectedAt: 7,
    };
    expect(candidateOf('a.json', registration, site)).toEqual({
      source: 'local-relay',
      key: 'a.json',
      endpoint: { url: 'http://127.0.0.1:5000', route: 'relay', ownerUid: 1000 },
      claims: { id: 'i1', name: 'a', hostname: 'laptop', localPort: 4096, directory: '/x', connectedAt: 7 },
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
