import { describe, expect, it } from 'vitest';
import type { Settings, SourceName } from '../../src/config/settings.ts';
import { createSources, systemDependencies } from '../../src/discovery/sources.ts';
import { silentLogger } from '../../src/base/log.ts';

const INSTANCE = { name: 'a', url: 'http://127.0.0.1:4096', headers: {} };

function namesFor(changed: Partial<Settings>): string[] {
  const settings: Settings = {
    registryDir: { path: '/nowhere/registry', explicit: false },
    sources: 'all',
    discoveryIntervalMs: 1000,
    healthCheckTimeoutMs: 1000,
    healthConcurrency: 1,
    sendTimeoutMs: 1000,
    credentialRules: [],
    instances: [],
    toolsets: [],
    readOnly: false,
    approve: 'ask',
    approvalRules: [],
    logLevel: 'info',
    connected: { relayRegistryDir: { path: '/nowhere/registry', explicit: true }, opencodeBin: 'opencode' },
    stateDir: '/nowhere/state',
    serviceDir: '/nowhere/state',
    opencodeStateDir: '/nowhere/opencode',
    tailnet: { nodePort: 4095, ports: [4096], tags: [], users: [] },
    mdnsInterfaces: 'all',
    ...changed,
  };
  return createSources(settings, systemDependencies(silentLogger)).map(({ name }) => name);
}

describe('createSources', () => {
  it.each<{ name: string; changed: Partial<Settings>; expected: SourceName[] }>([
    { name: 'all', changed: {}, expected: ['local-relay', 'service', 'tailscale', 'mdns'] },
    {
      name: 'all, on no interface',
      changed: { mdnsInterfaces: [] },
      expected: ['local-relay', 'service', 'tailscale'],
    },
    {
      name: 'the LAN by name, on no interface',
      changed: { sources: ['mdns'], mdnsInterfaces: [] },
      expected: ['mdns'],
    },
    {
      name: 'all, with instances',
      changed: { instances: [INSTANCE] },
      expected: ['local-relay', 'service', 'tailscale', 'mdns', 'static'],
    },
    { name: 'one by name', changed: { sources: ['local-relay'] }, expected: ['local-relay'] },
    {
      name: 'instances are wanted whatever is named',
      changed: { sources: ['local-relay'], instances: [INSTANCE] },
      expected: ['local-relay', 'static'],
    },
    { name: 'static by name', changed: { sources: ['static'], instances: [INSTANCE] }, expected: ['static'] },
    { name: 'static by name, without instances', changed: { sources: ['static'] }, expected: ['static'] },
    { name: 'none', changed: { sources: [] }, expected: [] },
    { name: 'a name twice', changed: { sources: ['local-relay', 'local-relay'] }, expected: ['local-relay'] },
  ])('creates $expected for $name', ({ changed, expected }) => {
    expect(namesFor(changed)).toEqual(expected);
  });
});
