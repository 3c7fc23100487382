import type { Event as OpencodeEvent } from '@opencode-ai/sdk/v2/client';
import { createParser } from 'eventsource-parser';

import { DEFAULT_WAIT_MS, within } from './wait.ts';

type EventType = OpencodeEvent['type'];
type PropertiesOf = { readonly [E in OpencodeEvent as E['type']]: E['properties'] };

/** One event of a known type. */
export interface TappedEvent<T extends EventType> {
  readonly type: T;
  readonly properties: PropertiesOf[T];
}

/** Records an event stream and waits for events. */
export interface EventTap extends AsyncDisposable {
  readonly events: readonly OpencodeEvent[];
  /** Types of the events so far without heartbeats, for asserting their order. */
  readonly types: readonly string[];
  /** Resolves with the first event of this type, past or to come, that `where` accepts. `from` skips that many events: take `events.length` before acting. */
  waitFor<T extends EventType>(
    type: T,
    where?: (properties: PropertiesOf[T]) => boolean,
    options?: { readonly from?: number; readonly timeoutMs?: number },
  ): Promise<TappedEvent<T>>;
  /** Resolves once the stream has ended; with the error if it broke. */
  readonly ended: Promise<Error | undefined>;
  close(): Promise<void>;
}

/** Subscribes to `<server>/event` for the server's directory, or to another path. Resolves with the response's head, after which no event is missed. */
export async function tapEvents(
  server: { readonly url: string; readonly directory?: string; readonly headers?: Readonly<Record<string, string>> },
  path = '/event',
): Promise<EventTap> {
  const controller = new AbortController();
  const url = new URL(path, server.url);
  if (server.directory !== undefined) url.searchParams.set('directory', server.directory);
  const response = await within(
    fetch(url, { headers: { accept: 'text/event-stream', ...server.headers }, signal: controller.signal }),
    `the head of ${url.pathname}`,
  );
  if (!response.ok || !response.body) throw new Error(`GET ${url.pathname} gave ${response.status}`);

  const events: OpencodeEvent[] = [];
  const news = new EventTarget();
  const parser = createParser({
    onEvent({ data }) {
      const event: OpencodeEvent | { readonly payload: OpencodeEvent } = JSON.parse(data);
      // `/global/event` wraps each event together with its directory.
      events.push('payload' in event ? event.payload : event);
      news.dispatchEvent(new Event('event'));
    },
  });
  const ended = drain(response.body, (text) => parser.feed(text));

  async function waitFor<T extends EventType>(
    type: T,
    where: (properties: PropertiesOf[T]) => boolean = () => true,
    { from = 0, timeoutMs = DEFAULT_WAIT_MS }: { readonly from?: number; readonly timeoutMs?: number } = {},
  ): Promise<TappedEvent<T>> {
    let stop = (): void => {};
    const found = new Promise<TappedEvent<T>>((resolve) => {
      let next = from;
      const look = (): void => {
        for (; next < events.length; next++) {
          const event = events[next];
          if (event && isOf(event, type) && where(event.properties)) return resolve(event);
        }
      };
      stop = () => news.removeEventListener('event', look);
      news.addEventListener('event', look);
      look();
    });
    try {
      return await within(
        found,
        () => `${type}; so far ${JSON.stringify(events.slice(from).map((event) => event.type))}`,
        timeoutMs,
      );
    } finally {
      stop();
    }
  }

  return {
    events,
    get types() {
      return events.map((event) => event.type as string).filter((type) => type !== 'server.heartbeat');
    },
    waitFor,
    ended,
    async close() {
      controller.abort();
      await ended;
    },
    async [Symbol.asyncDispose]() {
      controller.abort();
      await ended;
    },
  };
}

function isOf<T extends EventType>(event: OpencodeEvent, type: T): event is OpencodeEvent & TappedEvent<T> {
  return event.type === type;
}

async function drain(body: ReadableStream<Uint8Array>, feed: (text: string) => void): Promise<Error | undefined> {
  const decoder = new TextDecoder();
  try {
    for await (const chunk of body) feed(decoder.decode(chunk, { stream: true }));
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
