import { hostname } from 'node:os';
import type * as z from 'zod';
import { systemClock, type Clock } from '../base/clock.ts';
import { SettingsError, type Settings } from '../config/settings.ts';
import type { Logger } from '../base/log.ts';
import { createMdnsSource, MDNS_SOURCE, mdnsOptions } from './mdns/mdns.ts';
import {
  createRegistrySource,
  REGISTRY_SOURCE,
  registryOptions,
  registryOptionsOf,
  type RegistryDependencies,
} from './registry/registry.ts';
import { createServiceSource, SERVICE_SOURCE, serviceOptions } from './service/service.ts';
import type { DiscoverySource } from './source.ts';
import { createStaticSource, STATIC_SOURCE, staticOptions } from './static.ts';
import { createTailscaleSource, tailscaleOptions } from './tailnet/tailscale.ts';
import { TAILSCALE_SOURCE } from './tailnet/peer.ts';

/** What the sources take from the outside. A test replaces any of it. */
export interface SourceDependencies extends RegistryDependencies {
  readonly clock: Clock;
}

interface SourceLine<Options> {
  readonly name: string;
  readonly schema: z.ZodType<Options>;
  readonly options: (settings: Settings) => Options;
  readonly create: (options: Options, dependencies: SourceDependencies) => DiscoverySource;
}

type CreateSource = (settings: Settings, dependencies: SourceDependencies) => DiscoverySource;

/** Every source, in the order of their results: one line each. */
const SOURCES: ReadonlyMap<string, CreateSource> = new Map([
  line({
    name: REGISTRY_SOURCE,
    schema: registryOptions,
    options: registryOptionsOf,
    create: createRegistrySource,
  }),
  line({
    name: SERVICE_SOURCE,
    schema: serviceOptions,
    options: ({ opencodeStateDir: directory }) => ({ directory }),
    create: createServiceSource,
  }),
  line({
    name: TAILSCALE_SOURCE,
    schema: tailscaleOptions,
    options: ({ tailnet }) => tailnet,
    create: createTailscaleSource,
  }),
  line({
    name: MDNS_SOURCE,
    schema: mdnsOptions,
    options: ({ mdnsInterfaces: interfaces }) => ({ interfaces }),
    create: createMdnsSource,
  }),
  line({
    name: STATIC_SOURCE,
    schema: staticOptions,
    options: ({ instances }) => ({ instances }),
    create: createStaticSource,
  }),
]);

/** The real clock, user and machine name. */
export function systemDependencies(logger: Logger): SourceDependencies {
  return { logger, clock: systemClock, uid: process.geteuid?.(), hostname: hostname() };
}

/**
 * The sources that the settings ask for; `static` joins wherever instances are configured, and `mdns` is out where it may
 * use no interface.
 * Throws a SettingsError for a name that is no source of this version.
 */
export function createSources(settings: Settings, dependencies: SourceDependencies): DiscoverySource[] {
  const wanted = new Set(settings.sources === 'all' ? SOURCES.keys() : settings.sources);
  for (const name of wanted) {
    const problem = sourceNameProblem(name);
    if (problem !== undefined) throw new SettingsError(`sources: ${problem}`);
  }
  if (settings.instances.length > 0) wanted.add(STATIC_SOURCE);
  else if (settings.sources === 'all') wanted.delete(STATIC_SOURCE);
  if (settings.sources === 'all' && settings.mdnsInterfaces.length === 0) wanted.delete(MDNS_SOURCE);
  return [...SOURCES].filter(([name]) => wanted.has(name)).map(([, create]) => create(settings, dependencies));
}

/** What is wrong with `name` as the name of a source, or undefined. */
function sourceNameProblem(name: string): string | undefined {
  if (SOURCES.has(name)) return undefined;
  const expected = `expected "all" or any of ${[...SOURCES.keys()].join(', ')}`;
  return `${expected}, got ${JSON.stringify(name)}`;
}

/** Hides the type of a source's options, so that lines of different sources fit one list. */
function line<Options>({ name, schema, options, create }: SourceLine<Options>): readonly [string, CreateSource] {
  return [
    name,
    (settings, dependencies) => {
      const checked = schema.safeParse(options(settings));
      if (!checked.success) {
        const problems = checked.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
        throw new SettingsError(`${name}: ${problems.join('; ')}`, { cause: checked.error });
      }
      return create(checked.data, dependencies);
    },
  ];
}
