import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';

import * as z from 'zod';

import { type HttpListener, listenHttp } from '../http-listener.ts';

/**
 * The publishing side of an ntfy server, with the limits, codes and answers of 2.26 (from its source and documentation). Unknown fields,
 * which the real one ignores, are errors.
 */
export interface FakeNtfy extends AsyncDisposable {
  readonly url: string;
  /** Accepted messages, in order. */
  readonly messages: readonly NtfyMessage[];
  /** The newest message of each sequence, as a phone shows them. */
  readonly shown: ReadonlyMap<string, NtfyMessage>;
  /** ntfy's codes of the errors answered so far. */
  readonly refused: readonly number[];
  /** Answers the next `requests` requests with "too many requests". */
  limit(requests: number): void;
  close(): Promise<void>;
}

export interface NtfyMessage {
  readonly id: string;
  readonly sequence_id?: string;
  readonly time: number;
  readonly expires: number;
  readonly event: 'message';
  readonly topic: string;
  readonly title?: string;
  readonly message: string;
  readonly priority?: number;
  readonly tags?: readonly string[];
  readonly click?: string;
}

export interface FakeNtfyOptions {
  /** The token that requests need; without it, access is open. */
  readonly token?: string;
  /** Behaves like a version before 2.16, which ignores sequences. */
  readonly isOld?: boolean;
  readonly port?: number;
}

const MESSAGE_LIMIT_BYTES = 4_096;
const CACHED_S = 12 * 3_600;

const published = z.strictObject({
  topic: z.string(),
  sequence_id: z.string().optional(),
  title: z.string().optional(),
  message: z.string().optional(),
  priority: z.number().optional(),
  tags: z.array(z.string()).optional(),
  click: z.string().optional(),
});

interface Refusal {
  readonly code: number;
  readonly http: number;
  readonly error: string;
}

const refusal = (code: number, error: string): Refusal => ({ code, http: Math.floor(code / 100), error });

export async function startFakeNtfy({ token, isOld = false, port }: FakeNtfyOptions = {}): Promise<FakeNtfy> {
  const messages: NtfyMessage[] = [];
  const refused: number[] = [];
  let limited = 0;

  const accept = async (request: IncomingMessage): Promise<NtfyMessage | Refusal> => {
    const body = await text(request);
    if (limited > 0) {
      limited -= 1;
      return refusal(42_901, 'limit reached: too many requests, please be nice');
    }
    if (request.method !== 'POST' || request.url !== '/') return refusal(40_401, 'page not found');
    if (Buffer.byteLength(body) > 2 * MESSAGE_LIMIT_BYTES) return refusal(41_303, 'JSON body too large');
    const parsed = published.safeParse(JSON.parse(body));
    if (!parsed.success) return refusal(40_017, `invalid request: request body must be message JSON: ${parsed.error}`);
    const { topic, sequence_id, title, message = '', priority = 0, tags = [], click } = parsed.data;
    if (!/^[-_A-Za-z0-9]{1,64}$/.test(topic)) return refusal(40_009, 'invalid request: topic invalid');
    const { authorization } = request.headers;
    if (token !== undefined && authorization !== `Bearer ${token}`)
      return authorization === undefined ? refusal(40_301, 'forbidden') : refusal(40_101, 'unauthorized');
    if (priority < 0 || priority > 5) return refusal(40_007, 'invalid priority parameter');
    if (sequence_id !== undefined && !/^[-_A-Za-z0-9]{1,64}$/.test(sequence_id))
      return refusal(40_049, 'invalid request: sequence ID invalid');
    // A longer message would become an attachment.
    if (Buffer.byteLength(message) > MESSAGE_LIMIT_BYTES)
      return refusal(40_014, 'invalid request: attachments not allowed');
    const time = Math.floor(Date.now() / 1_000);
    return {
      id: `id${messages.length}`,
      ...(sequence_id !== undefined && !isOld && { sequence_id }),
      time,
      expires: time + CACHED_S,
      event: 'message',
      topic,
      ...(title !== undefined && title !== '' && { title }),
      message: message === '' ? 'triggered' : message,
      ...(priority > 0 && { priority }),
      ...(tags.length > 0 && { tags }),
      ...(click !== undefined && { click }),
    };
  };

  const listener: HttpListener = await listenHttp((request: IncomingMessage, response: ServerResponse) => {
    void accept(request).then((answer) => {
      if ('code' in answer) refused.push(answer.code);
      else messages.push(answer);
      response.writeHead('http' in answer ? answer.http : 200, { 'content-type': 'application/json' });
      response.end(`${JSON.stringify(answer)}\n`);
    });
  }, port);
  return {
    url: listener.url,
    messages,
    refused,
    get shown() {
      return new Map(messages.map((message) => [message.sequence_id ?? message.id, message]));
    },
    limit: (requests) => void (limited = requests),
    close: () => listener.close(),
    [Symbol.asyncDispose]: () => listener.close(),
  };
}
