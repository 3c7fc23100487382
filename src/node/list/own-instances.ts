import { createHash } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import type { Settings } from '../../config/settings.ts';
import { LiveFleet } from '../../fleet/fleet.ts';
import type { Instance } from '../../model/instance.ts';
import { createRegistrySource, registryOptionsOf } from '../../discovery/registry/registry.ts';
import type { Candidate } from '../../model/candidate.ts';
import type { DiscoverySource } from '../../discovery/source.ts';
import type { Logger } from '../../base/log.ts';
import type { Credential } from '../../http/exchange.ts';
import type { OwnPorts } from '../access/own-ports.ts';

/** One opencode of this machine and user that answers. */
export interface OwnInstance {
  /** The registration's, or one made from it; the same for as long as the registration lasts. */
  readonly id: string;
  readonly name: string;
  readonly port: number;
  /** Its own, as its `/path` told it. */
  readonly directory: string;
  readonly version: string;
  readonly candidate: Candidate;
}

export interface OwnInstancesDeps {
  readonly settings: Pick<
    Settings,
    'registryDir' | 'stateDir' | 'discoveryIntervalMs' | 'healthCheckTimeoutMs' | 'healthConcurrency'
  >;
  readonly uid: number;
  /** This machine's name. */
  readonly hostname: string;
  readonly ports: Pick<OwnPorts, 'ours'>;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The live instances that this user registered on this machine: nobody else's, and no tunnel's. */
export class OwnInstances {
  /** Called when the list is likely to be another; a process that was killed, or replaced under its name, is not told. */
  onChange: () => void = () => {};
  readonly #deps: OwnInstancesDeps;
  readonly #fleet: LiveFleet;

  constructor(deps: OwnInstancesDeps) {
    const { settings, uid, hostname, clock, logger } = deps;
    this.#deps = deps;
    // Not explicit, whoever set it: only a directory of our own holds what we registered.
    const registry = createRegistrySource(
      { ...registryOptionsOf(settings), explicit: false },
      { logger, uid, hostname },
    );
    this.#fleet = new LiveFleet({
      settings,
      clock,
      logger,
      sources: [ownRegistrations(registry, logger)],
      resolveCredential: (candidate, signal) => this.#resolve(candidate, signal),
      // Not what people are told: that waits, and leaves out who came and went meanwhile.
      onPresence: () => this.onChange(),
    });
  }

  start(): void {
    this.#fleet.start();
  }

  /** Those that answer now, ordered by name; waits for the first look at them, which is bounded. */
  async list(): Promise<readonly OwnInstance[]> {
    const found = await this.#answering();
    const ports = await this.#deps.ports.ours([...found.values()].map(({ port }) => port));
    return [...found.values()].filter(({ port }) => ports.has(port));
  }

  /** The one with that id, as in `list`; the others are not looked at. */
  async find(id: string): Promise<OwnInstance | undefined> {
    const instance = (await this.#answering()).get(id);
    if (instance === undefined) return undefined;
    return (await this.#deps.ports.ours([instance.port])).has(instance.port) ? instance : undefined;
  }

  /** What its opencode asks for; undefined where it asks for nothing. Rejects where the password cannot be read. */
  credential({ candidate }: OwnInstance, signal: AbortSignal): Promise<Credential | undefined> {
    return this.#resolve(candidate, signal);
  }

  close(): Promise<void> {
    return this.#fleet.close();
  }

  /** By id. */
  async #answering(): Promise<ReadonlyMap<string, OwnInstance>> {
    await this.#fleet.ready();
    const found = new Map<string, OwnInstance>();
    for (const instance of this.#fleet.snapshot().instances) {
      const own = ownOf(instance);
      if (own !== undefined && !found.has(own.id)) found.set(own.id, own);
    }
    return found;
  }

  async #resolve(candidate: Candidate, signal: AbortSignal): Promise<Credential | undefined> {
    const port = portOf(candidate);
    // The registration may be older than what listens there now.
    if (!(await this.#deps.ports.ours([port])).has(port))
      throw new Error(`port ${port} is not held by a process of this user, so no password is sent to it`);
    return this.#deps.resolveCredential(candidate, signal);
  }
}

/** The registry's candidates that are ours and of this machine. */
function ownRegistrations(registry: ReturnType<typeof createRegistrySource>, logger: Logger): DiscoverySource {
  let told = '';
  return {
    name: registry.name,
    changes: (signal) => registry.changes(signal),
    close: () => registry.close(),
    async scan(signal) {
      const { candidates, notes } = await registry.scan(signal);
      const own = candidates.filter(
        ({ trust, endpoint }) => trust.level === 'trusted' && endpoint.route === 'loopback',
      );
      const distrust = candidates.map(({ trust }) => trust).find(({ level }) => level === 'untrusted');
      const reason = distrust?.level === 'untrusted' ? distrust.reason : '';
      if (reason !== told) {
        told = reason;
        if (reason !== '') logger.log('warn', 'some registrations are not served', { reason });
      }
      return { candidates: own, notes };
    },
  };
}

function ownOf({ server: { endpoints } }: Instance): OwnInstance | undefined {
  // One look that failed is no end: a caller in the middle of a turn would be told that there is no such instance. Whether
  // its process still holds the port is asked anyway.
  const endpoint =
    endpoints.find(({ result }) => result.status === 'healthy') ??
    endpoints.find(({ result, lastHealthy }) => result.status === 'unhealthy' && lastHealthy !== undefined);
  if (endpoint?.lastHealthy === undefined) return undefined;
  const { candidate, lastHealthy: result } = endpoint;
  const port = portOf(candidate);
  const id = candidate.claims.id ?? madeId(candidate);
  return {
    id,
    name: candidate.claims.name ?? id,
    port,
    directory: result.directory,
    version: result.version,
    candidate,
  };
}

/** Registrations of the original have no id. The same process keeps the one made of its file, port and start. */
function madeId({ key, endpoint, claims }: Candidate): string {
  const facts = JSON.stringify([key, endpoint.url, claims.connectedAt ?? null]);
  return `r-${createHash('sha256').update(facts).digest('base64url').slice(0, 22)}`;
}

function portOf({ endpoint }: Candidate): number {
  return Number(new URL(endpoint.url).port);
}
