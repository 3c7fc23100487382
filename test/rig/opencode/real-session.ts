import type { Opencode } from './opencode.ts';
import { until } from '../wait.ts';

/** The fields of a stored message that tests read. */
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

/** A session of a real opencode, driven by plain HTTP without any code under test. */
export interface RealSession {
  readonly id: string;
  /** Unix time in milliseconds by the server's clock. */
  readonly createdMs: number;
  /** Sends a prompt and resolves at the 204. `extra` is merged into the body: `messageID`, `agent`. */
  prompt(text: string, extra?: Readonly<Record<string, unknown>>): Promise<void>;
  messages(): Promise<readonly StoredMessage[]>;
  /** Resolves when the session is idle and all answers are complete: after an error or an abort the idle event comes earlier. */
  settled(): Promise<{
    readonly text: string;
    readonly last: StoredMessage;
    readonly messages: readonly StoredMessage[];
  }>;
  status(): Promise<{ readonly type: string } | undefined>;
  abort(): Promise<void>;
}

/** Creates a session; without `title`, opencode asks the model for one. */
export async function createRealSession(opencode: Opencode, title?: string): Promise<RealSession> {
  const { id, time } = await opencode.json<{ readonly id: string; readonly time: { readonly created: number } }>(
    'POST',
    '/session',
    title === undefined ? {} : { title },
  );
  const messages = (): Promise<readonly StoredMessage[]> => opencode.json('GET', `/session/${id}/message`);
  const status: RealSession['status'] = async () => {
    const statuses = await opencode.json<Readonly<Record<string, { readonly type: string }>>>('GET', '/session/status');
    return statuses[id];
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

/** The joined text parts of a message, without reasoning. */
export function textOf({ parts }: StoredMessage): string {
  return parts
    .filter(({ type }) => type === 'text')
    .map(({ text }) => text ?? '')
    .join('');
}
