import { createParser } from 'eventsource-parser';

import { DEFAULT_WAIT_MS, within } from '../wait.ts';

/** One event of an OpenCode 2 server, of any dialect. */
export interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly location?: { readonly directory: string };
  readonly durable?: { readonly aggregateID: string; readonly seq: number; readonly version: number };
  readonly data: { readonly sessionID?: string; readonly [key: string]: unknown };
}

/** Keeps all events of one stream of an OpenCode 2, and waits for further ones. */
export interface ServerEventTap extends AsyncDisposable {
  readonly events: readonly ServerEvent[];
  /** The texts of the comments so far, `heartbeat` among them. */
  readonly comments: readonly string[];
  /** The events of one session so far. */
  of(sessionID: string): readonly ServerEvent[];
  /** Resolves with the first past or future event of this type that `where` accepts. `from` skips that many events: take `events.length` before acting. */
  waitFor(
    type: string,
    where?: (event: ServerEvent) => boolean,
    options?: { readonly from?: number; readonly timeoutMs?: number },
  ): Promise<ServerEvent>;
  /** Resolves when the stream has ended, with the error if it broke. */
  readonly ended: Promise<Error | undefined>;
  close(): Promise<void>;
}

/** Subscribes to `/api/event`, or to another stream. Resolves with the response's head: from then on no event is missed. */
export async function tapServerEvents(
  server: { readonly url: string; readonly headers: Readonly<Record<string, string>> },
  path = '/api/event',
): Promise<ServerEventTap> {
  const controller = new AbortController();
  const response = await within(
    fetch(new URL(path, server.url), { headers: server.headers, signal: controller.signal }),
    `the head of ${path}`,
  );
  if (!response.ok || !response.body) throw new Error(`GET ${path} gave ${response.status}: ${await response.text()}`);

  const events: ServerEvent[] = [];
  const comments: string[] = [];
  const news = new EventTarget();
  const parser = createParser({
    onEvent({ data }) {
      const event: ServerEvent = JSON.parse(data);
      events.push(event);
      news.dispatchEvent(new Event('event'));
    },
    onComment: (comment) => void comments.push(comment),
  });
  const ended = drain(response.body, (text) => parser.feed(text));

  const waitFor: ServerEventTap['waitFor'] = async (type, where = () => true, { from = 0, timeoutMs } = {}) => {
    let stop = (): void => {};
    const found = new Promise<ServerEvent>((resolve) => {
      let next = from;
      const look = (): void => {
        for (; next < events.length; next++) {
          const event = events[next];
          if (event?.type === type && where(event)) return resolve(event);
        }
      };
      stop = () => news.removeEventListener('event', look);
      news.addEventListener('event', look);
      look();
    });
    const seen = (): string => JSON.stringify(events.slice(from).map((event) => event.type));
    try {
      return await within(found, () => `${type}; so far ${seen()}`, timeoutMs ?? DEFAULT_WAIT_MS);
    } finally {
      stop();
    }
  };
  const close = async (): Promise<void> => {
    controller.abort();
    await ended;
  };
  return {
    events,
    comments,
    of: (sessionID) => events.filter(({ data }) => data.sessionID === sessionID),
    waitFor,
    ended,
    close,
    [Symbol.asyncDispose]: close,
  };
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
