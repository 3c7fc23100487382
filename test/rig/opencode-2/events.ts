import type { ServerResponse } from 'node:http';

import { CONTRACT, checkEvent } from './contract.ts';
import type { Fields, ServerEvent, Store, StoredSession } from './store.ts';

/** Real ones are 15 s apart. */
const HEARTBEAT_MS = 15_000;

/** The event streams of a fake OpenCode 2, each for all directories. */
export class Events {
  readonly #store: Store;
  readonly #violate: (violation: string) => void;
  readonly #streams = new Set<ServerResponse>();
  readonly #heart: NodeJS.Timeout;

  constructor(store: Store, violate: (violation: string) => void) {
    this.#store = store;
    this.#violate = violate;
    this.#heart = setInterval(() => {
      for (const response of this.#streams) response.write(HEARTBEAT);
    }, HEARTBEAT_MS);
    this.#heart.unref();
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
      // A form names its session itself.
      data: type === 'form.created' ? data : { sessionID: id, ...data },
    };
    this.#check(event);
    if (durable) session.log.push(event);
    for (const response of this.#streams) write(response, event);
  }

  /** `/api/event`: no past events. */
  open(response: ServerResponse): void {
    const connected = { id: this.#store.id('evt'), type: 'server.connected', data: {} };
    this.#check(connected);
    begin(response);
    write(response, connected);
    response.write(HEARTBEAT);
    this.#streams.add(response);
    response.once('close', () => this.#streams.delete(response));
  }

  /** A session's durable events after that `seq`. */
  sendLog(response: ServerResponse, { info, log }: StoredSession, after: number): void {
    begin(response);
    for (const event of log.slice(after + 1)) write(response, event);
    const seq = log.length - 1;
    write(response, { type: 'log.synced', aggregateID: info.id, ...(seq < 0 ? {} : { seq }) });
    response.end();
  }

  /** How many streams are open. */
  get size(): number {
    return this.#streams.size;
  }

  close(): void {
    clearInterval(this.#heart);
    for (const response of this.#streams) response.destroy();
    this.#streams.clear();
  }

  #check(event: ServerEvent): void {
    const wrong = checkEvent(event);
    if (wrong !== undefined) this.#violate(`event ${event.type}: ${wrong}`);
  }
}

const HEARTBEAT = ': heartbeat\n\n';

function begin(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
}

function write(response: ServerResponse, event: object): void {
  response.write(`data: ${JSON.stringify(event)}\n\n`);
}
