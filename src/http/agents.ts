import { readFileSync } from 'node:fs';
import { Agent, type AgentOptions, type ClientRequestArgs } from 'node:http';
import type { Duplex } from 'node:stream';

import { type Dial, dialConnector } from '../base/dial.ts';

/** An idle connection is closed before the server may do it: Node's servers and common proxies do after 5 s. */
const IDLE_SOCKET_MS = 4000;

export const KEEPING: AgentOptions = { keepAlive: true, timeout: IDLE_SOCKET_MS, scheduling: 'lifo' };

/** Of all agents together. Enough for two to each of 200 instances, where the system lets this process open many files. */
const MOST_IDLE = 400;
/** More than probes that are under way leave between two requests, and far from a limit of 256 files. */
const LEAST_IDLE = 64;

let maxIdle: number | undefined;

/** A quarter of the files that this process may have open, within these bounds. */
function idleLimit(): number {
  maxIdle ??= Math.min(MOST_IDLE, Math.max(LEAST_IDLE, Math.floor(fileLimit() / 4)));
  return maxIdle;
}

/** What Linux says; elsewhere nobody knows. */
function fileLimit(): number {
  try {
    return Number(/^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** The longest idle first. */
const IDLE = new Set<Duplex>();

function forget(this: Duplex): void {
  IDLE.delete(this);
}

/** The same agent, whose idle connections count among those of all. */
export function keeping<A extends Agent>(agent: A): A {
  // Node calls these with each connection that becomes idle, and that is used again. The first says whether it is kept.
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

/** Closes what has been idle for longest, until no more than `left` are. */
export function closeIdle(left = 0): void {
  for (const oldest of IDLE) {
    if (IDLE.size <= left) break;
    IDLE.delete(oldest);
    oldest.destroy();
  }
}

/** Keeps dialled connections as the agents of node:http keep theirs, by host and port. */
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
