import { Agent, type ClientRequestArgs } from 'node:http';
import type { Duplex } from 'node:stream';

import { type Dial, dialConnector } from '../base/dial.ts';

/** Keeps dialled connections as the agents of node:http keep theirs, by host and port. */
export class DialAgent extends Agent {
  readonly #connect: ReturnType<typeof dialConnector>;

  constructor(dial: Dial, idleMs: number) {
    super({ keepAlive: true, timeout: idleMs, scheduling: 'lifo' });
    this.#connect = dialConnector(dial);
  }

  override createConnection(
    options: ClientRequestArgs,
    done: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    return this.#connect(options, done);
  }
}
