import type { IncomingMessage } from 'node:http';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { createParser } from 'eventsource-parser';

import { fieldsOf, isRecord, jsonOf } from '../base/errors.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { type Connection, openStream, RequestError } from '../http/exchange.ts';
import { JsonCutter } from '../http/json-cutter.ts';

/** One event of opencode, also from `{directory, payload}` of `/global/event`. */
export interface ServerEvent {
  /** The same on every connection to one process, and in no other process (1.18.10 and 1.18.33). */
  readonly id?: string;
  readonly type: string;
  readonly properties: Readonly<Record<string, unknown>>;
  /** Of its JSON. */
  readonly chars?: number;
}

export interface EventStream extends AsyncIterable<ServerEvent> {
  /** Ends the iteration and frees the socket. May be called twice. */
  close(): void;
}

/** Reads one message of the stream as OpenCode 1's events. `chars`: the length of its JSON. */
export type EventsIn = (value: unknown, chars: number) => readonly ServerEvent[];

/** Heartbeats come every 10 s; three missed ones mean a dead peer or a half-open tunnel. */
const SILENCE_LIMIT_MS = 30_000;

/** A cold instance took 1.2 s for its first answers. */
const HEADERS_TIMEOUT_MS = 10_000;

/** Parsed in one turn of the event loop: during a flood nothing else is served meanwhile. */
const PIECE_BYTES = 16 * 1024;

/** An event may carry a part with its pictures, or all changes of a turn. */
const MAX_EVENT_CHARS = 8 * 1024 * 1024;
/** Longer than any answer. The largest permission request has three such strings. */
const MAX_STRING_BYTES = 1024 * 1024;

/**
 * Subscribes to the event stream at `path`. Resolves with the response's headers: from then on no event is missed, so a prompt may be
 * sent. The iteration ends when the server ends the stream or `close` is called, and throws `RequestError` if the connection breaks or
 * stays silent.
 */
export async function openEvents(
  connection: Connection,
  path: string,
  signal?: AbortSignal,
  read: EventsIn = eventsOfOpencode1,
): Promise<EventStream> {
  const open = new LinkedAbort(signal);
  try {
    const response = await openStream(connection, path, {
      headersTimeoutMs: HEADERS_TIMEOUT_MS,
      signal: open.signal,
    });
    const label = `GET ${connection.endpoint.url}${path.split('?', 1)[0]}`;
    return { close: () => open.end(), [Symbol.asyncIterator]: () => readEvents(response, label, open, read) };
  } catch (error) {
    open.end();
    throw error;
  }
}

async function* readEvents(
  response: IncomingMessage,
  label: string,
  open: LinkedAbort,
  read: EventsIn,
): AsyncGenerator<ServerEvent, void, undefined> {
  let silent = false;
  let overflow = false;
  const ready: ServerEvent[] = [];
  const parser = createParser({
    maxBufferSize: MAX_EVENT_CHARS,
    onEvent: (message) => {
      ready.push(...read(jsonOf(message.data), message.data.length));
    },
    onError: (error) => {
      overflow ||= error.type === 'max-buffer-size-exceeded';
    },
  });
  const decoder = new TextDecoder();
  const cutter = new JsonCutter(MAX_STRING_BYTES, true);
  const watchdog = setTimeout(() => {
    silent = true;
    open.abort();
  }, SILENCE_LIMIT_MS);
  watchdog.unref();
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      watchdog.refresh();
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        if (at > 0) await nextTurn();
        const kept = cutter.write(chunk.subarray(at, at + PIECE_BYTES));
        parser.feed(decoder.decode(kept, { stream: true }));
        if (overflow)
          throw new RequestError('malformed', `${label}: an event is larger than ${MAX_EVENT_CHARS} characters`);
        yield* ready.splice(0);
      }
    }
  } catch (cause) {
    if (silent) throw new RequestError('broken', `${label}: silent for ${SILENCE_LIMIT_MS} ms`, { cause });
    if (open.signal.aborted) return;
    if (cause instanceof RequestError) throw cause;
    throw new RequestError('broken', `${label}: the event stream broke`, { cause });
  } finally {
    clearTimeout(watchdog);
    open.end();
  }
}

function eventsOfOpencode1(value: unknown, chars: number): readonly ServerEvent[] {
  const outer = fieldsOf(value);
  const { id, type, properties } = isRecord(outer['payload']) ? outer['payload'] : outer;
  // `/global/event` sends most events a second time as type "sync".
  if (typeof type !== 'string' || type === 'sync' || !isRecord(properties)) return [];
  return [{ type, properties, chars, ...(typeof id === 'string' ? { id } : {}) }];
}
