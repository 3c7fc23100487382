import type { Opencode } from './opencode.ts';
import { until } from './wait.ts';

/** As much of a stored message as tests look at. */
export interface StoredMessage {
  readonly info: {
    readonly id: string;
    readonly sessionID: string;
    readonly role: 'user' | 'assistant';
    readonly parentID?: string;
    readonly finish?: string;
    readonly time: { readonly created: number; readonly completed?: number };
    readonly error?: {
      readonly name: string;
      readonly data: { readonly message?: string; readonly statusCode?: number };
    };
  };
  readonly parts: ReadonlyArray<{ readonly id: string; readonly type: string; readonly text?: string }>;
}

/** One session of a real opencode, driven by plain HTTP and without any code that is under test. */
export interface RealSession {
  readonly id: string;
  /** Milliseconds since the epoch of the server's clock. */
  readonly createdMs: number;
  /** Sends a prompt and resolves at the 204. `extra` joins the body: `messageID`, `agent`. */
  prompt(text: string, extra?: Readonly<Record<string, unknown>>): Promise<void>;
  messages(): Promise<readonly StoredMessage[]>;
  /** Resolves when nothing runs and the newest message is a completed answer, with the text of that answer. The idle event is not enough: after an error or an abort it comes earlier. */
  settled(): Promise<{
    readonly text: string;
    readonly last: StoredMessage;
    readonly messages: readonly StoredMessage[];
  }>;
  status(): Promise<{ readonly type: string } | undefined>;
  abort(): Promise<void>;
}

/** A title spares the model the question for one. */
export async function createRealSession(opencode: Opencode, title?: string): Promise<RealSession> {
  const { id, time } = await opencode.json<{ readonly id: string; readonly time: { readonly created: number } }>(
    'POST',
    '/session',
    title === undefined ? {} : { title },
  );
  const messages = (): Promise<readonly StoredMessage[]> => opencode.json('GET', `/session/${id}/message`);
  const status: RealSession['status'] = async () => {
    const all = await opencode.json<Readonly<Record<string, { readonly type: string }>>>('GET', '/session/status');
    return all[id];
  };
  return {
    id,
    createdMs: time.created,
    messages,
    status,
    async prompt(text, extra = {}) {
      const body = { ...extra, parts: [{ type: 'text', text }] };
      const response = await opencode.request('POST', `/session/${id}/prompt_async`, body);
      if (response.status !== 204) throw new Error(`prompt_async gave ${response.status}: ${await response.text()}`);
    },
    settled: () =>
      until(`session ${id} to settle`, async () => {
        if (await status()) return undefined;
        const stored = await messages();
        const last = stored.at(-1);
        if (last?.info.role !== 'assistant') return undefined;
        if (stored.some(({ info }) => info.role === 'assistant' && info.time.completed === undefined)) return undefined;
        return { text: textOf(last), last, messages: stored };
      }),
    async abort() {
      await opencode.json('POST', `/session/${id}/abort`);
    },
  };
}

/** The text parts of a message, joined; reasoning left out. */
export function textOf({ parts }: StoredMessage): string {
  return parts
    .filter(({ type }) => type === 'text')
    .map(({ text }) => text ?? '')
    .join('');
}
