import type { Clock } from '../clock.ts';
import type { Logger } from '../log.ts';
import type { LocalApi } from '../tailscale/types.ts';
import type { AdmissionRules } from './admission.ts';
import { Callers } from './callers.ts';
import { Connections } from './connections.ts';
import { Gate } from './gate.ts';
import { Listener, type ListenerLimits } from './listener.ts';
import type { LoopbackPeerDeps } from './loopback-peer.ts';
import type { OwnInstances } from './own-instances.ts';
import { ReadSessions } from './read-sessions.ts';
import { TailnetView } from './tailnet-view.ts';

export interface NodeServiceDeps {
  readonly api: LocalApi;
  readonly instances: OwnInstances;
  readonly port: number;
  readonly rules: AdmissionRules;
  /** This machine's own name. */
  readonly host: string;
  readonly loopbackPeer: LoopbackPeerDeps;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: ListenerLimits;
  readonly maxConnections?: number;
}

/** `opencode-mcp node`: this user's instances, listed and proxied on the machine's tailnet addresses. */
export class NodeService {
  readonly #deps: NodeServiceDeps;
  readonly #view: TailnetView;
  readonly #listener: Listener;
  readonly #connections: Connections;

  constructor(deps: NodeServiceDeps) {
    this.#deps = deps;
    const { api, clock, logger, rules, loopbackPeer, instances, host, port, limits } = deps;
    this.#connections = new Connections(deps.maxConnections);
    this.#view = new TailnetView({ api, clock, logger, onChange: (tailnet) => this.#listener.follow(tailnet) });
    const gate = new Gate({
      tailnet: () => this.#view.current,
      callers: new Callers({ api, view: this.#view, rules, loopbackPeer, clock }),
      sessions: new ReadSessions(),
      connections: this.#connections,
      instances,
      host,
      clock,
      logger,
    });
    const connections = this.#connections;
    this.#listener = new Listener({ port, gate, connections, clock, logger, ...(limits && { limits }) });
  }

  /** Addresses that are listened on now. */
  get addresses(): readonly string[] {
    return this.#listener.addresses;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#connections.count;
  }

  /** Begins to follow tailscaled and the registry; returns at once. */
  start(): void {
    this.#deps.instances.start();
    this.#view.start();
  }

  /** Cuts every connection and ends. */
  async close(): Promise<void> {
    this.#listener.close();
    await Promise.all([this.#view.close(), this.#deps.instances.close()]);
  }
}
