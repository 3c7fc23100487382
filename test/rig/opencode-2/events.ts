import type { ServerResponse } from 'node:http';

import { CONTRACT, checkEvent } from './contract.ts';
import type { Fields, ServerEvent, Store, StoredSession } from './store.ts';

/** A real server sends one every 15 s. */
const HEARTBEAT_MS = 15_000;

/** The event streams of a fake OpenCode 2, each for all directories. */
export class Events {
  readonly #store: Store;
  readonly #violate: (violation: string) => void;
  readonly #streams = new Set<ServerResponse>();
  readonly #heartbeat: NodeJS.Timeout;

  constructor(store: Store, violate: (violation: string) => void) {
    this.#store = store;
    this.#violate = violate;
    this.#heartbeat = setInterval(() => {
      for (const response of this.#streams) response.write(HEARTBEAT);
    }, HEARTBEAT_MS);
    this.#heartbeat.unref();
  }

  /** Checks an event, and writes it to every stream, and to the session's log if the contract calls it durable. */
  publish(session: StoredSession, type: string, data: Fields): void {
    const { id, location } = session.info;
    const durable = CONTRACT.events[type]?.durable === true;
    const event: ServerEvent = {
      id: this.#store.id('evt'),
      type,
      created: this.#store.now(),
      ...(durable ? { durable: { aggregateID: id, seq: session.log.length, version: 1 } } : {}),
      location,
      // A form already contains its session's id.
      data: type === 'form.created' ? data : { sessionID: id, ...data },
    };
    this.#check(event);
    if (durable) session.log.push(event);
    for (const response of this.#streams) writeEvent(response, event);
  }

  /** Answers `/api/event`, which sends no past events. */
  open(response: ServerResponse): void {
    const connected = { id: this.#store.id('evt'), type: 'server.connected', data: {} };
    this.#check(connected);
    startStream(response);
    writeEvent(response, connected);
    response.write(HEARTBEAT);
    this.#streams.add(response);
    response.once('close', () => this.#streams.delete(response));
  }

  /** Sends the session's durable events after the sequence number `after`. */
  sendLog(response: ServerResponse, { info, log }: StoredSession, after: number): void {
    startStream(response);
    for (const event of log.slice(after + 1)) writeEvent(response, event);
    const seq = log.length - 1;
    writeEvent(response, { type: 'log.synced', aggregateID: info.id, ...(seq < 0 ? {} : { seq }) });
    response.end();
  }

  /** The number of open streams. */
  get size(): number {
    return this.#streams.size;
  }

  close(): void {
    clearInterval(this.#heartbeat);
    for (const response of this.#streams) response.destroy();
    this.#streams.clear();
  }

  #check(event: ServerEvent): void {
    const fault = checkEvent(event);
    if (fault !== undefined) this.#violate(`event ${event.type}: ${fault}`);
  }
}

const HEARTBEAT = ': heartbeat\n\n';

function startStream(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
}

function writeEvent(response: ServerResponse, event: object): void {
  response.write(`data: ${JSON.stringify(event)}\n\n`);
}
