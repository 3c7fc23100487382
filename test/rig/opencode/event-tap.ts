import type { Event as OpencodeEvent } from '@opencode-ai/sdk/v2/client';
import { createParser } from 'eventsource-parser';

import { Arrivals } from '../arrivals.ts';
import { within } from '../wait.ts';

interface WaitOptions {
  /** Skips this many events: the `events.length` of before the action. */
  readonly from?: number;
  readonly timeoutMs?: number;
}

/** Records an event stream and waits for events. */
export class StreamTap<E extends { readonly type: string }> implements AsyncDisposable {
  readonly comments: string[] = [];
  /** Resolves once the stream has ended; with the error if it broke. */
  readonly ended: Promise<Error | undefined>;
  readonly #arrivals = new Arrivals<E>();
  readonly #controller: AbortController;

  /** `toEvent` takes the event out of the parsed data of a message. */
  constructor({ body, controller }: OpenStream, toEvent: (data: unknown) => E) {
    this.#controller = controller;
    const parser = createParser({
      onEvent: ({ data }) => this.#arrivals.add(toEvent(JSON.parse(data))),
      onComment: (comment) => void this.comments.push(comment),
    });
    this.ended = drain(body, (text) => parser.feed(text));
  }

  get events(): readonly E[] {
    return this.#arrivals.items;
  }

  protected first(type: string, fits: (event: E) => boolean, options: WaitOptions = {}): Promise<E> {
    const types = (): string[] => this.events.slice(options.from).map((event) => event.type);
    return this.#arrivals.first(() => `${type}; so far ${JSON.stringify(types())}`, fits, options);
  }

  async close(): Promise<void> {
    this.#controller.abort();
    await this.ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

interface OpenStream {
  readonly body: AsyncIterable<Uint8Array>;
  readonly controller: AbortController;
}

/** Resolves with the response's head, after which no event is missed. */
export async function openStream(url: URL, headers: Readonly<Record<string, string>> = {}): Promise<OpenStream> {
  const controller = new AbortController();
  const accept = { accept: 'text/event-stream', ...headers };
  const opening = fetch(url, { headers: accept, signal: controller.signal });
  const response = await within(opening, `the head of ${url.pathname}`);
  if (!response.ok || !response.body)
    throw new Error(`GET ${url.pathname} gave ${response.status}: ${await response.text()}`);
  return { body: response.body, controller };
}

async function drain(body: AsyncIterable<Uint8Array>, feed: (text: string) => void): Promise<Error | undefined> {
  const decoder = new TextDecoder();
  try {
    for await (const chunk of body) feed(decoder.decode(chunk, { stream: true }));
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

type EventType = OpencodeEvent['type'];
type EventOf<T extends EventType> = { readonly [E in OpencodeEvent as E['type']]: E }[T];

/** Records the events of an OpenCode 1. */
export class EventTap extends StreamTap<OpencodeEvent> {
  /** Types of the events so far without heartbeats, for asserting their order. */
  get types(): readonly string[] {
    return this.events.map((event) => event.type as string).filter((type) => type !== 'server.heartbeat');
  }

  /** Resolves with the first past or future event of this type that `where` accepts. */
  async waitFor<T extends EventType>(
    type: T,
    where: (properties: EventOf<T>['properties']) => boolean = () => true,
    options?: WaitOptions,
  ): Promise<EventOf<T>> {
    const hasType = (event: OpencodeEvent): event is EventOf<T> => event.type === type;
    return (await this.first(type, (event) => hasType(event) && where(event.properties), options)) as EventOf<T>;
  }
}

/** Subscribes to `<server>/event` for the server's directory, or to another path. */
export async function tapEvents(
  server: { readonly url: string; readonly directory?: string; readonly headers?: Readonly<Record<string, string>> },
  path = '/event',
): Promise<EventTap> {
  const url = new URL(path, server.url);
  if (server.directory !== undefined) url.searchParams.set('directory', server.directory);
  // `/global/event` wraps each event together with its directory.
  return new EventTap(await openStream(url, server.headers), (data) => {
    const event = data as OpencodeEvent | { readonly payload: OpencodeEvent };
    return 'payload' in event ? event.payload : event;
  });
}
