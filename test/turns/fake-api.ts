import { EventEmitter, on } from 'node:events';

import type { OpencodeApi, Prompt } from '../../src/opencode/api.ts';
import { createClient, type EndpointApi, type NextEndpoint, type OpencodeClient } from '../../src/opencode/client.ts';
import type { EventStream, ServerEvent } from '../../src/opencode/events.ts';
import type { Message, Permission, Session, SessionStatus } from '../../src/opencode/schema.ts';
import { RequestError } from '../../src/http/exchange.ts';

export const SESSION: Session = {
  id: 'ses_turn',
  title: 'a session',
  directory: '/p',
  time: { created: 1_000, updated: 1_000 },
};

/** An opencode in memory that the test drives step by step, for faults that the real one does not show on command. */
export class FakeApi implements Partial<OpencodeApi> {
  isIdempotent = false;
  readonly store: Message[];
  readonly prompts: Prompt[] = [];
  status: SessionStatus = { type: 'idle' };
  readonly permissionList: Permission[] = [];
  readonly sessionList: Session[] = [SESSION];
  /** Called for each prompt; the default accepts it into the store. */
  onPrompt: (prompt: Prompt) => void | Promise<void> = (prompt) => this.accept(prompt);
  onStatuses: () => void = () => {};
  /** Called for each attempt to subscribe. */
  onEvents: () => void = () => {};
  subscriptions = 0;
  #streams = new Set<FakeStream>();

  /** @param store of another endpoint to the same process */
  constructor(store: Message[] = []) {
    this.store = store;
  }

  /** A client whose first endpoint is this one. A turn makes no other calls than these. */
  client(next: NextEndpoint = () => Promise.resolve(undefined)): OpencodeClient {
    return createClient(this.endpoint('first'), next);
  }

  endpoint(key: string): EndpointApi {
    return { key, api: this as Partial<OpencodeApi> as OpencodeApi };
  }

  /** Accepts the prompt as opencode does: a second one with the same part id appends nothing. */
  accept(prompt: Prompt): void {
    if (this.store.some(({ info }) => info.id === prompt.messageId)) return;
    this.store.push({
      info: { id: prompt.messageId, role: 'user', time: { created: 2_000 } },
      parts: [{ id: prompt.partId, messageID: prompt.messageId, type: 'text', text: prompt.text }],
    });
  }

  /** Answers each prompt with this text. */
  answerWith(text: string): void {
    this.onPrompt = (prompt) => {
      this.accept(prompt);
      this.answer(prompt.messageId, text);
    };
  }

  /** Begins to answer each prompt; `then` gets the answer's id. */
  workOnPrompt(then: (answerId: string) => void = () => {}): void {
    this.onPrompt = (prompt) => {
      this.accept(prompt);
      const answerId = successorOf(prompt.messageId);
      this.setStatus({ type: 'busy' });
      this.begin(prompt.messageId, answerId);
      then(answerId);
    };
  }

  /** Fails each prompt after `first`. */
  failPrompts(error: RequestError, first: () => void = () => {}): void {
    this.onPrompt = () => {
      first();
      throw error;
    };
  }

  emit(type: string, properties: Record<string, unknown>): void {
    for (const stream of this.#streams)
      stream.emit('event', { type, properties: { sessionID: SESSION.id, ...properties } });
  }

  setStatus(status: SessionStatus): void {
    this.status = status;
    this.emit('session.status', { status });
  }

  /** A whole answer to `parentID`: busy, one message with one text part, idle. */
  answer(parentID: string, text: string, messageId = successorOf(this.store.at(-1)?.info.id ?? parentID)): void {
    this.setStatus({ type: 'busy' });
    this.begin(parentID, messageId);
    this.beginText(messageId);
    this.addText(messageId, text);
    this.finish(messageId, text);
    this.setStatus({ type: 'idle' });
    this.emit('session.idle', {});
  }

  begin(parentID: string, messageId: string): void {
    const info = { id: messageId, role: 'assistant', parentID, time: { created: 3_000 } } as const;
    this.store.push({ info, parts: [] });
    this.emit('message.updated', { info });
  }

  beginText(messageId: string): void {
    this.emit('message.part.updated', {
      part: { id: `prt_${messageId}`, messageID: messageId, type: 'text', text: '' },
    });
  }

  addText(messageId: string, delta: string): void {
    this.emit('message.part.delta', { messageID: messageId, partID: `prt_${messageId}`, field: 'text', delta });
  }

  finish(messageId: string, text: string, extra: Record<string, unknown> = { finish: 'stop' }): void {
    const index = this.store.findIndex(({ info }) => info.id === messageId);
    const message = this.store[index];
    if (message === undefined) throw new Error(`no message ${messageId}`);
    const part = { id: `prt_${messageId}`, messageID: messageId, type: 'text', text, time: { start: 1, end: 2 } };
    const info = { ...message.info, time: { created: 3_000, completed: 4_000 }, ...extra } as Message['info'];
    this.store[index] = { info, parts: text === '' ? [] : [part] };
    if (text !== '') this.emit('message.part.updated', { part });
    this.emit('message.updated', { info });
  }

  /** Every stream breaks, as when a tunnel dies. */
  breakStreams(): void {
    for (const stream of this.#streams) stream.emit('error', new RequestError('broken', 'the event stream broke'));
    this.#streams.clear();
  }

  async events(): Promise<EventStream> {
    await Promise.resolve();
    this.subscriptions += 1;
    this.onEvents();
    const stream = new FakeStream();
    this.#streams.add(stream);
    stream.on('close', () => this.#streams.delete(stream));
    return stream;
  }

  async statuses(): Promise<ReadonlyMap<string, SessionStatus>> {
    await Promise.resolve();
    this.onStatuses();
    return this.status.type === 'idle' ? new Map() : new Map([[SESSION.id, this.status]]);
  }

  async prompt(prompt: Prompt): Promise<void> {
    this.prompts.push(prompt);
    await this.onPrompt(prompt);
  }

  messages(
    _: string,
    { limit, before }: { limit: number; before?: string },
  ): Promise<{ messages: Message[]; olderCursor?: string }> {
    const end = before === undefined ? this.store.length : Number(before);
    const start = Math.max(0, end - limit);
    return Promise.resolve({
      messages: structuredClone(this.store.slice(start, end)),
      ...(start > 0 && { olderCursor: String(start) }),
    });
  }

  message(_: string, id: string): Promise<Message | undefined> {
    return Promise.resolve(this.store.find(({ info }) => info.id === id));
  }

  session = (id: string): Promise<Session | undefined> =>
    Promise.resolve(this.sessionList.find((session) => session.id === id));
  permissions = (): Promise<Permission[]> => Promise.resolve(this.permissionList);
  questions = (): Promise<never[]> => Promise.resolve([]);
  abort = (): Promise<void> => Promise.resolve();
}

/** A request for permission to run `ls`, made by that message. */
export function permission(messageID: string, id = 'per_1', sessionID = SESSION.id): Permission {
  return { id, sessionID, permission: 'bash', patterns: ['ls'], always: [], tool: { messageID } };
}

export function successorOf(id: string): string {
  const digits = /^msg_([0-9a-f]{12})/.exec(id)?.[1] ?? '000000000000';
  return `msg_${(BigInt(`0x${digits}`) + 1n).toString(16).padStart(12, '0')}assistant0000`;
}

/** Gives its events in order, then its error. */
class FakeStream extends EventEmitter implements EventStream {
  readonly #events = on(this, 'event', { close: ['close'] });

  close(): void {
    this.emit('close');
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ServerEvent, void, undefined> {
    for await (const [event] of this.#events) yield event as ServerEvent;
  }
}
