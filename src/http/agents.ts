import { readFileSync } from 'node:fs';
import { Agent, type AgentOptions, type ClientRequestArgs } from 'node:http';
import type { Duplex } from 'node:stream';

import { type Dial, dialConnector } from '../base/dial.ts';

/** Below the 5 s after which Node's servers and common proxies close an idle connection. */
const IDLE_SOCKET_MS = 4000;

export const KEEPING: AgentOptions = { keepAlive: true, timeout: IDLE_SOCKET_MS, scheduling: 'lifo' };

/** Idle sockets of all agents together: two connections to each of 200 instances. */
const MAX_IDLE = 400;
/** More than concurrent probes leave idle between two requests, and far below a limit of 256 files. */
const MIN_IDLE = 64;

let maxIdle: number | undefined;

/** A quarter of the files that this process may open, within these bounds. */
function idleLimit(): number {
  maxIdle ??= Math.min(MAX_IDLE, Math.max(MIN_IDLE, Math.floor(fileLimit() / 4)));
  return maxIdle;
}

/** 0 if unknown, as on all systems but Linux. */
function fileLimit(): number {
  try {
    return Number(/^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** In the order in which they became idle. */
const IDLE = new Set<Duplex>();

function forget(this: Duplex): void {
  IDLE.delete(this);
}

/** Adds the idle connections of `agent` to the common limit. Returns the same agent. */
export function keeping<A extends Agent>(agent: A): A {
  // Node calls these when a connection becomes idle (the result says whether to keep it) and when it is reused.
  const keep: (socket: Duplex) => unknown = agent.keepSocketAlive.bind(agent);
  const reuse = agent.reuseSocket.bind(agent);
  agent.keepSocketAlive = (socket) => {
    const isKept = keep(socket);
    if (isKept === true) rest(socket);
    return isKept;
  };
  agent.reuseSocket = (socket, request) => {
    IDLE.delete(socket);
    reuse(socket, request);
  };
  return agent;
}

function rest(socket: Duplex): void {
  IDLE.add(socket);
  socket.off('close', forget);
  socket.once('close', forget);
  closeIdle(idleLimit());
}

/** Closes the connections idle for longest, until `left` remain. */
export function closeIdle(left = 0): void {
  for (const oldest of IDLE) {
    if (IDLE.size <= left) break;
    IDLE.delete(oldest);
    oldest.destroy();
  }
}

/** Pools dialled connections by host and port, like the agents of node:http. */
export class DialAgent extends Agent {
  readonly #connect: ReturnType<typeof dialConnector>;

  constructor(dial: Dial) {
    super(KEEPING);
    this.#connect = dialConnector(dial);
  }

  override createConnection(
    options: ClientRequestArgs,
    done: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    return this.#connect(options, done);
  }
}
