import { hostname } from 'node:os';
import { systemClock, type Clock } from '../base/clock.ts';
import { SOURCE_NAMES, type Settings, type SourceName } from '../config/settings.ts';
import type { Logger } from '../base/log.ts';
import { createMdnsSource, MDNS_SOURCE } from './mdns/mdns.ts';
import {
  createRegistrySource,
  REGISTRY_SOURCE,
  registryOptionsOf,
  type RegistryDependencies,
} from './registry/registry.ts';
import { createServiceSource, SERVICE_SOURCE } from './service/service.ts';
import type { DiscoverySource } from './source.ts';
import { createStaticSource, STATIC_SOURCE } from './static.ts';
import { createTailscaleSource } from './tailnet/tailscale.ts';
import { TAILSCALE_SOURCE } from './tailnet/peer.ts';

/** What the sources need from outside; tests replace it. */
export interface SourceDependencies extends RegistryDependencies {
  readonly clock: Clock;
}

type SourceSettings = Pick<
  Settings,
  'sources' | 'registryDir' | 'stateDir' | 'opencodeStateDir' | 'tailnet' | 'mdnsInterfaces' | 'instances'
>;

type CreateSource = (settings: SourceSettings, dependencies: SourceDependencies) => DiscoverySource;

/** One line for each source. Settings are validated already. */
const SOURCES: Readonly<Record<SourceName, CreateSource>> = {
  [REGISTRY_SOURCE]: (settings, dependencies) => createRegistrySource(registryOptionsOf(settings), dependencies),
  [SERVICE_SOURCE]: ({ opencodeStateDir }, dependencies) =>
    createServiceSource({ directory: opencodeStateDir }, dependencies),
  [TAILSCALE_SOURCE]: ({ tailnet }, dependencies) => createTailscaleSource(tailnet, dependencies),
  [MDNS_SOURCE]: ({ mdnsInterfaces: interfaces }, dependencies) => createMdnsSource({ interfaces }, dependencies),
  [STATIC_SOURCE]: (settings) => createStaticSource(settings),
};

/** The real clock, user and host name. */
export function systemDependencies(logger: Logger): SourceDependencies {
  return { logger, clock: systemClock, uid: process.geteuid?.(), hostname: hostname() };
}

/** The sources selected by the settings, in the order of `SOURCE_NAMES`. */
export function createSources(settings: SourceSettings, dependencies: SourceDependencies): DiscoverySource[] {
  return SOURCE_NAMES.filter((name) => isSelected(name, settings)).map((name) => SOURCES[name](settings, dependencies));
}

function isSelected(name: SourceName, { sources, instances, mdnsInterfaces }: SourceSettings): boolean {
  // Configured instances are listed whatever sources are named.
  if (name === STATIC_SOURCE && instances.length > 0) return true;
  if (sources !== 'all') return sources.includes(name);
  return name !== STATIC_SOURCE && (name !== MDNS_SOURCE || mdnsInterfaces.length > 0);
}
