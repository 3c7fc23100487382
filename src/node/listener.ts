import { createServer, type Server } from 'node:http';
import { Socket } from 'node:net';
import { type Clock, repeat } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { Connections } from './proxy/connections.ts';
import type { Gate } from './access/gate.ts';
import type { Tailnet } from './tailnet-view.ts';

/** How long a caller may take. */
export interface ListenerLimits {
  readonly headersMs: number;
  readonly requestMs: number;
  /** Between two checks for slow callers. */
  readonly checkMs: number;
}

export const LISTENER_LIMITS: ListenerLimits = {
  // A request's head comes in one packet.
  headersMs: 10_000,
  // A prompt with attachments over a slow relayed link.
  requestMs: 120_000,
  checkMs: 5000,
};

/** Far more than opencode's clients send; their longest header is a directory. */
const MAX_HEADER_BYTES = 16 * 1024;
/** MCP clients poll every 30 s. */
const KEEP_ALIVE_MS = 45_000;
/** Detects peers that vanished. */
const TCP_KEEP_ALIVE_MS = 30_000;

/** tailscaled reports its address up to a second before the interface has it. */
const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 10_000;

/** Where inbound tailnet connections arrive with userspace networking, IPv6 ones too (netstack.go of tailscale 1.102). */
const USERSPACE_ADDRESS = '127.0.0.1';

export interface ListenerDeps {
  readonly port: number;
  readonly gate: Pick<Gate, 'request' | 'upgrade'>;
  readonly connections: Connections;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: ListenerLimits;
}

/** Listens on this machine's tailnet addresses and nowhere else. */
export class Listener {
  readonly #deps: ListenerDeps;
  readonly #open = new Map<string, OneAddress>();

  constructor(deps: ListenerDeps) {
    this.#deps = deps;
  }

  /** The addresses it listens on now. */
  get addresses(): readonly string[] {
    return [...this.#open].filter(([, one]) => one.listening).map(([address]) => address);
  }

  follow(tailnet: Tailnet | undefined): void {
    const wanted = new Set(addressesOf(tailnet));
    for (const [address, one] of this.#open) {
      if (wanted.has(address)) continue;
      this.#open.delete(address);
      one.close();
    }
    for (const address of wanted) {
      if (!this.#open.has(address)) this.#open.set(address, new OneAddress(address, this.#deps));
    }
    // Without tailscaled no caller's right can be checked.
    if (wanted.size === 0) this.#deps.connections.destroy();
  }

  close(): void {
    this.follow(undefined);
  }
}

function addressesOf(tailnet: Tailnet | undefined): readonly string[] {
  if (tailnet === undefined) return [];
  return tailnet.tun ? tailnet.self.addresses : [USERSPACE_ADDRESS];
}

class OneAddress {
  listening = false;
  readonly #address: string;
  readonly #deps: ListenerDeps;
  readonly #ending = new AbortController();
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(address: string, deps: ListenerDeps) {
    this.#address = address;
    this.#deps = deps;
    this.#server = this.#createServer();
    void this.#listen();
  }

  close(): void {
    this.#ending.abort();
    this.listening = false;
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #listen(): Promise<void> {
    const { clock, logger, port } = this.#deps;
    const { signal } = this.#ending;
    let logged = '';
    await repeat({ clock, signal, firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS }, async () => {
      const reason = await this.#attempt();
      if (signal.aborted) return 'done';
      this.listening = reason === undefined;
      if (this.listening) logger.log('info', 'listening', { address: this.#address, port });
      else if (reason !== logged) logger.log('warn', 'cannot listen yet', { address: this.#address, port, reason });
      logged = reason ?? '';
      return this.listening ? 'done' : 'again';
    });
  }

  /** Undefined once it listens, else the reason. */
  #attempt(): Promise<string | undefined> {
    const server = this.#server;
    return new Promise((resolve) => {
      const settle = (problem?: string): void => {
        server.removeAllListeners('error').removeAllListeners('listening');
        server.on('error', () => {});
        if (this.#ending.signal.aborted) server.close();
        resolve(problem);
      };
      server.removeAllListeners('error');
      server.once('listening', () => settle());
      server.once('error', (error: NodeJS.ErrnoException) => settle(reasonOf(error)));
      server.listen({ port: this.#deps.port, host: this.#address, exclusive: true });
    });
  }

  #createServer(): Server {
    const { gate, connections, limits = LISTENER_LIMITS } = this.#deps;
    const server = createServer({
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.requestMs,
      connectionsCheckingInterval: limits.checkMs,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
      insecureHTTPParser: false,
    });
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
      connections.add(socket);
    });
    server.on('request', (request, response) => void gate.request(request, response));
    server.on('upgrade', (request, socket, head) => {
      if (socket instanceof Socket) void gate.upgrade(request, socket, head);
      else socket.destroy();
    });
    return server;
  }
}

function reasonOf({ code, message }: NodeJS.ErrnoException): string {
  if (code === 'EADDRINUSE')
    return 'another program listens there, maybe another user’s node service; give each its own OPENCODE_NODE_PORT';
  if (code === 'EADDRNOTAVAIL') return 'the machine does not have this address yet';
  return code ?? message;
}
