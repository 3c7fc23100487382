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

/** A reachable opencode of this user on this machine. */
export interface OwnInstance {
  /** From the registration, or derived from it; stable while the registration lasts. */
  readonly id: string;
  readonly name: string;
  readonly port: number;
  /** The process that must hold the port, if it registered itself. */
  readonly pid?: number;
  /** From its `/path`; empty for an OpenCode 2. */
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
  /** This machine's host name. */
  readonly hostname: string;
  readonly ports: Pick<OwnPorts, 'ours'>;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The live instances that this user registered on this machine, and this user's OpenCode 2 services. No tunnels. */
export class OwnInstances implements OwnServers {
  readonly #deps: OwnInstancesDeps;
  readonly #fleet: LiveFleet;
  readonly #listeners = new Set<() => void>();
  /** Derived from one snapshot; a change makes another snapshot. */
  #known: { readonly snapshot: Snapshot; readonly byId: ReadonlyMap<string, Known> } | undefined;
  /** See `setFollowed`. */
  readonly #followed = new Set<string>();

  constructor(deps: OwnInstancesDeps) {
    const { settings, uid, hostname, clock, logger } = deps;
    this.#deps = deps;
    // Never `explicit`, even if configured: that would allow a directory that another user owns.
    const dependencies = { logger, uid, hostname };
    const registry = createRegistrySource({ ...registryOptionsOf(settings), explicit: false }, dependencies);
    const services = createServiceSource({ directory: settings.opencodeStateDir }, dependencies);
    this.#fleet = new LiveFleet({
      settings,
      clock,
      logger,
      sources: [ownOnly(registry, logger), ownOnly(services, logger)],
      resolveCredential: (candidate, signal) => this.#resolve(candidate, signal),
      // Not `onChange`, which is delayed, and skips an instance that came and went in between.
      onPresence: () => {
        for (const listener of this.#listeners) listener();
      },
      isFollowed: ({ candidate }) => this.#followed.has(idOf(candidate)),
    });
  }

  /** For the page. */
  get fleet(): Fleet {
    return this.#fleet;
  }

  start(): void {
    this.#fleet.start();
  }

  /** The reachable instances, ordered by name. Waits for their first probe, which is bounded. */
  async list(): Promise<readonly OwnInstance[]> {
    return this.#deps.ports.ours([...(await this.#answering()).values()]);
  }

  /** The instance of `list` with that id; checks its port only. */
  async find(id: string): Promise<OwnInstance | undefined> {
    const instance = (await this.#answering()).get(id);
    if (instance === undefined) return undefined;
    return (await this.#deps.ports.ours([instance]))[0];
  }

  /** Undefined if it needs none. Rejects if the password cannot be read. */
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
      // Two servers can be registered with one id; the first wins.
      else if (known.instances[0].server === instance.server)
        byId.set(own.id, { own: known.own, instances: ownDirectoryFirst([...known.instances, instance]) });
    }
    this.#known = { snapshot, byId };
    return byId;
  }

  async #resolve(candidate: Candidate, signal: AbortSignal): Promise<Credential | undefined> {
    const claim = portOf(candidate);
    // The registration may be older than the process that listens there now.
    if ((await this.#deps.ports.ours([claim])).length === 0) {
      const holder = claim.pid === undefined ? 'a process of this user' : `process ${claim.pid} of this user`;
      throw new Error(`port ${claim.port} is not held by ${holder}, so no password is sent to it`);
    }
    return this.#deps.resolveCredential(candidate, signal);
  }
}

/** The source's trusted loopback candidates. */
function ownOnly(source: Required<DiscoverySource>, logger: Logger): DiscoverySource {
  let lastReason = '';
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
      if (reason !== lastReason) {
        lastReason = reason;
        if (reason !== '')
          logger.log('warn', `some candidates of the source ${source.name} are not served`, { reason });
      }
      return { candidates: own, notes };
    },
  };
}

function ownOf({ server: { endpoints } }: Instance): OwnInstance | undefined {
  // The service's own file is preferred to a registration.
  const isService = ({ candidate: { source } }: ProbedEndpoint): boolean => source === SERVICE_SOURCE;
  const ordered = [...endpoints.filter(isService), ...endpoints.filter((one) => !isService(one))];
  // An endpoint stays listed after a failed probe, or a caller in the middle of a turn would get a 404. The port's holder is
  // checked anyway.
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
  return candidate.claims.id ?? derivedId(candidate);
}

/** A server as it is listed, and all its instances in the fleet. */
interface Known {
  readonly own: OwnInstance;
  readonly instances: NonEmpty<Instance>;
}

/** The server's own directory before the others. */
function ownDirectoryFirst(instances: NonEmpty<Instance>): NonEmpty<Instance> {
  const isElsewhere = ({ server, directory }: Instance): number => Number(directory !== server.directory);
  return sortNonEmpty(instances, (one, other) => isElsewhere(one) - isElsewhere(other));
}

/** A service is identified by its file's name. A registration without an id gets one derived from its file, port and start time. */
function derivedId({ source, key, endpoint, claims }: Candidate): string {
  if (source === SERVICE_SOURCE && INSTANCE_ID.test(key)) return key;
  const facts = JSON.stringify([key, endpoint.url, claims.connectedAt ?? null]);
  return `r-${createHash('sha256').update(facts).digest('base64url').slice(0, 22)}`;
}

function portOf({ endpoint: { url, holderPid } }: Candidate): PortClaim {
  return { port: Number(new URL(url).port), ...(holderPid !== undefined && { pid: holderPid }) };
}
