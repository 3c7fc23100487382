import { createHash } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import type { Settings } from '../../config/settings.ts';
import { type Fleet, LiveFleet } from '../../fleet/fleet.ts';
import type { Dialect, Instance, ProbedEndpoint, Snapshot } from '../../model/instance.ts';
import { type NonEmpty, sortNonEmpty } from '../../model/non-empty.ts';
import { createRegistrySource, registryOptionsOf } from '../../discovery/registry/registry.ts';
import { createServiceSource, SERVICE_SOURCE } from '../../discovery/service/service.ts';
import { INSTANCE_ID } from '../../discovery/tailnet/peer-list.ts';
import type { Candidate } from '../../model/candidate.ts';
import type { DiscoverySource } from '../../discovery/source.ts';
import type { Logger } from '../../base/log.ts';
import type { Connection, Credential } from '../../http/exchange.ts';
import type { OwnServer, OwnServers } from '../../watch/own-servers.ts';
import type { OwnPorts, PortClaim } from '../access/own-ports.ts';

/** One opencode of this machine and user that answers. */
export interface OwnInstance {
  /** The registration's, or one made from it; the same for as long as the registration lasts. */
  readonly id: string;
  readonly name: string;
  readonly port: number;
  /** The process that must hold the port, where it named itself. */
  readonly pid?: number;
  /** Its own, from its `/path`; empty for an OpenCode 2, which has none. */
  readonly directory: string;
  readonly version: string;
  readonly dialect: Dialect;
  readonly candidate: Candidate;
}

export interface OwnInstancesDeps {
  readonly settings: Pick<
    Settings,
    | 'registryDir'
    | 'stateDir'
    | 'opencodeStateDir'
    | 'discoveryIntervalMs'
    | 'healthCheckTimeoutMs'
    | 'healthConcurrency'
  >;
  readonly uid: number;
  /** This machine's name. */
  readonly hostname: string;
  readonly ports: Pick<OwnPorts, 'ours'>;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The live instances that this user registered on this machine, and their OpenCode 2 services: nobody else's, and no tunnel's. */
export class OwnInstances implements OwnServers {
  readonly #deps: OwnInstancesDeps;
  readonly #fleet: LiveFleet;
  readonly #listeners = new Set<() => void>();
  /** Of one snapshot, which stands until something is different. */
  #known: { readonly snapshot: Snapshot; readonly byId: ReadonlyMap<string, Known> } | undefined;
  /** See `setFollowed`. */
  readonly #followed = new Set<string>();

  constructor(deps: OwnInstancesDeps) {
    const { settings, uid, hostname, clock, logger } = deps;
    this.#deps = deps;
    // Never explicit, even if configured: only a directory of our own holds what we registered.
    const dependencies = { logger, uid, hostname };
    const registry = createRegistrySource({ ...registryOptionsOf(settings), explicit: false }, dependencies);
    const services = createServiceSource({ directory: settings.opencodeStateDir }, dependencies);
    this.#fleet = new LiveFleet({
      settings,
      clock,
      logger,
      sources: [ownOnly(registry, logger), ownOnly(services, logger)],
      resolveCredential: (candidate, signal) => this.#resolve(candidate, signal),
      // Not the change feed for people: that is delayed, and leaves out what came and went meanwhile.
      onPresence: () => {
        for (const listener of this.#listeners) listener();
      },
      isFollowed: ({ candidate }) => this.#followed.has(idOf(candidate)),
    });
  }

  /** All that is known of them, for the page. */
  get fleet(): Fleet {
    return this.#fleet;
  }

  start(): void {
    this.#fleet.start();
  }

  /** Those that answer now, ordered by name; waits for the first look at them, which is bounded. */
  async list(): Promise<readonly OwnInstance[]> {
    return this.#deps.ports.ours([...(await this.#answering()).values()]);
  }

  /** The one with that id, as in `list`; the others are not looked at. */
  async find(id: string): Promise<OwnInstance | undefined> {
    const instance = (await this.#answering()).get(id);
    if (instance === undefined) return undefined;
    return (await this.#deps.ports.ours([instance]))[0];
  }

  /** What its opencode asks for; undefined where it asks for nothing. Rejects where the password cannot be read. */
  credential({ candidate }: OwnInstance, signal: AbortSignal): Promise<Credential | undefined> {
    return this.#resolve(candidate, signal);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async servers(): Promise<readonly OwnServer[]> {
    return (await this.list()).map(({ id, dialect }) => ({ id, dialect, instances: this.instancesOf(id) }));
  }

  instancesOf(id: string): readonly Instance[] {
    return this.#byId().get(id)?.instances ?? [];
  }

  async connection(id: string, signal: AbortSignal): Promise<Connection> {
    const own = await this.find(id);
    if (own === undefined) throw new Error(`no process of this user listens where ${id} is registered`);
    const credential = await this.credential(own, signal);
    return { endpoint: own.candidate.endpoint, ...(credential !== undefined && { credential }) };
  }

  async survey(id: string, signal: AbortSignal): Promise<readonly Instance[]> {
    const [instance] = this.instancesOf(id);
    if (instance === undefined) return [];
    await this.#fleet.surveyServer({ instance }, signal);
    return this.instancesOf(id);
  }

  worksIn(id: string, session: { readonly id: string; readonly directory: string }): void {
    const [instance] = this.instancesOf(id);
    if (instance !== undefined) this.#fleet.worksIn({ instance }, session);
  }

  setFollowed(id: string, isFollowed: boolean): void {
    if (isFollowed) this.#followed.add(id);
    else this.#followed.delete(id);
  }

  close(): Promise<void> {
    return this.#fleet.close();
  }

  /** By id. */
  async #answering(): Promise<ReadonlyMap<string, OwnInstance>> {
    await this.#fleet.ready();
    return new Map([...this.#byId()].map(([id, { own }]) => [id, own]));
  }

  #byId(): ReadonlyMap<string, Known> {
    const snapshot = this.#fleet.snapshot();
    if (this.#known?.snapshot === snapshot) return this.#known.byId;
    const byId = new Map<string, Known>();
    for (const instance of snapshot.instances) {
      const own = ownOf(instance);
      if (own === undefined) continue;
      const known = byId.get(own.id);
      if (known === undefined) byId.set(own.id, { own, instances: [instance] });
      // Two servers can be registered with one id; the first one has it.
      else if (known.instances[0].server === instance.server)
        byId.set(own.id, { own: known.own, instances: ownFirst([...known.instances, instance]) });
    }
    this.#known = { snapshot, byId };
    return byId;
  }

  async #resolve(candidate: Candidate, signal: AbortSignal): Promise<Credential | undefined> {
    const claim = portOf(candidate);
    // The registration may be older than what listens there now.
    if ((await this.#deps.ports.ours([claim])).length === 0) {
      const holder = claim.pid === undefined ? 'a process of this user' : `process ${claim.pid} of this user`;
      throw new Error(`port ${claim.port} is not held by ${holder}, so no password is sent to it`);
    }
    return this.#deps.resolveCredential(candidate, signal);
  }
}

/** The source's candidates that are ours and of this machine. */
function ownOnly(source: Required<DiscoverySource>, logger: Logger): DiscoverySource {
  let told = '';
  return {
    name: source.name,
    changes: (signal) => source.changes(signal),
    close: () => source.close(),
    async scan(signal) {
      const { candidates, notes } = await source.scan(signal);
      const own = candidates.filter(
        ({ trust, endpoint }) => trust.level === 'trusted' && endpoint.route === 'loopback',
      );
      const distrust = candidates.map(({ trust }) => trust).find(({ level }) => level === 'untrusted');
      const reason = distrust?.level === 'untrusted' ? distrust.reason : '';
      if (reason !== told) {
        told = reason;
        if (reason !== '') logger.log('warn', `some of what the source ${source.name} found is not served`, { reason });
      }
      return { candidates: own, notes };
    },
  };
}

function ownOf({ server: { endpoints } }: Instance): OwnInstance | undefined {
  // One look that failed is no end: a caller in the middle of a turn would be told that there is no such instance. Whether
  // its process still holds the port is asked anyway.
  const isOwnWord = ({ candidate: { source } }: ProbedEndpoint): boolean => source === SERVICE_SOURCE;
  const ordered = [...endpoints.filter(isOwnWord), ...endpoints.filter((one) => !isOwnWord(one))];
  const endpoint =
    ordered.find(({ result }) => result.status === 'healthy') ??
    ordered.find(({ result, lastHealthy }) => result.status === 'unhealthy' && lastHealthy !== undefined);
  if (endpoint?.lastHealthy === undefined) return undefined;
  const { candidate, lastHealthy: result } = endpoint;
  const id = idOf(candidate);
  const { directory, version, dialect } = result;
  return { id, name: candidate.claims.name ?? id, ...portOf(candidate), directory, version, dialect, candidate };
}

function idOf(candidate: Candidate): string {
  return candidate.claims.id ?? madeId(candidate);
}

/** A server, as it is listed and with all that it is in the fleet. */
interface Known {
  readonly own: OwnInstance;
  readonly instances: NonEmpty<Instance>;
}

/** The server's own directory before the others. */
function ownFirst(instances: NonEmpty<Instance>): NonEmpty<Instance> {
  const isElsewhere = ({ server, directory }: Instance): number => Number(directory !== server.directory);
  return sortNonEmpty(instances, (one, other) => isElsewhere(one) - isElsewhere(other));
}

/** A service is what its file is called, whichever process it is. Registrations of the original have no id: the same process keeps the one made of its file, port and start. */
function madeId({ source, key, endpoint, claims }: Candidate): string {
  if (source === SERVICE_SOURCE && INSTANCE_ID.test(key)) return key;
  const facts = JSON.stringify([key, endpoint.url, claims.connectedAt ?? null]);
  return `r-${createHash('sha256').update(facts).digest('base64url').slice(0, 22)}`;
}

function portOf({ endpoint: { url, holderPid } }: Candidate): PortClaim {
  return { port: Number(new URL(url).port), ...(holderPid !== undefined && { pid: holderPid }) };
}
