import { describe, expect, it } from 'vitest';
import type { SourceName } from '../../src/config/settings.ts';
import { createSources, systemDependencies } from '../../src/discovery/sources.ts';
import { silentLogger } from '../../src/base/log.ts';

type SourceSettings = Parameters<typeof createSources>[0];

const DEFAULTS: SourceSettings = {
  sources: 'all',
  registryDir: { path: '/nowhere/registry', explicit: false },
  stateDir: '/nowhere/state',
  opencodeStateDir: '/nowhere/opencode',
  tailnet: { nodePort: 4095, ports: [4096], tags: [], users: [] },
  mdnsInterfaces: 'all',
  instances: [],
};
const INSTANCE = { name: 'a', url: 'http://127.0.0.1:4096', headers: {} };

describe('createSources', () => {
  it.each<[string, Partial<SourceSettings>, SourceName[]]>([
    ['by default', {}, ['local-relay', 'service', 'tailscale', 'mdns']],
    ['by default, without interfaces', { mdnsInterfaces: [] }, ['local-relay', 'service', 'tailscale']],
    ['for mdns by name, without interfaces', { sources: ['mdns'], mdnsInterfaces: [] }, ['mdns']],
    ['with instances', { instances: [INSTANCE] }, ['local-relay', 'service', 'tailscale', 'mdns', 'static']],
    ['by name', { sources: ['local-relay'] }, ['local-relay']],
    ['by name, with instances', { sources: ['local-relay'], instances: [INSTANCE] }, ['local-relay', 'static']],
    ['for static by name, without instances', { sources: ['static'] }, ['static']],
    ['for no name', { sources: [] }, []],
    ['for a name twice', { sources: ['local-relay', 'local-relay'] }, ['local-relay']],
  ])('creates the expected sources %s', (_, settings, expected) => {
    const sources = createSources({ ...DEFAULTS, ...settings }, systemDependencies(silentLogger));
    expect(sources.map(({ name }) => name)).toEqual(expected);
  });
});
