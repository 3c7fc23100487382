import { StringDecoder } from 'node:string_decoder';
import { Transform, type TransformCallback } from 'node:stream';

import { createParser, type EventSourceParser } from 'eventsource-parser';

import { jsonOf } from '../../base/errors.ts';

/** The events that a `read` caller may see: sessions and what they wait for, but not terminals, keys, settings or files. */
const SHOWN = /^(?:session|permission|question|form)\./;

/** The largest event holds a whole message part with its images. */
const MAX_EVENT_CHARS = 16 * 1024 * 1024;

/** Passes events of an OpenCode 2 stream that name a session or a directory, and heartbeats. */
export class EventFilter extends Transform {
  readonly #decoder = new StringDecoder('utf8');
  readonly #parser: EventSourceParser;
  #isTooLarge = false;

  constructor() {
    super();
    this.#parser = createParser({
      maxBufferSize: MAX_EVENT_CHARS,
      onComment: (comment) => void this.push(`: ${comment}\n\n`),
      onEvent: ({ data }) => {
        if (isShown(jsonOf(data))) this.push(`data: ${data.replaceAll('\n', '\ndata: ')}\n\n`);
      },
      onError: ({ type }) => {
        this.#isTooLarge ||= type === 'max-buffer-size-exceeded';
      },
    });
  }

  override _transform(chunk: Buffer, _: BufferEncoding, done: TransformCallback): void {
    this.#parser.feed(this.#decoder.write(chunk));
    done(this.#isTooLarge ? new Error(`an event has more than ${MAX_EVENT_CHARS} characters`) : null);
  }
}

function isShown(event: unknown): boolean {
  const { type, data, location } = fields(event);
  if (typeof type !== 'string' || !SHOWN.test(type)) return false;
  const { sessionID = fields(fields(data)['form'])['sessionID'] } = fields(data);
  return typeof sessionID === 'string' || typeof fields(location)['directory'] === 'string';
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}
