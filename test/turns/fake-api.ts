import type { ModelName, OpencodeApi, Prompt } from '../../src/opencode/api.ts';
import type { EventStream, ServerEvent } from '../../src/opencode/events.ts';
import type { Message, Permission, Question, Session, SessionStatus } from '../../src/opencode/schema.ts';
import { RequestError } from '../../src/http/exchange.ts';

export const SESSION: Session = {
  id: 'ses_turn',
  title: 'a session',
  directory: '/p',
  time: { created: 1_000, updated: 1_000 },
};

const unused = (): Promise<never> => Promise.reject(new Error('no turn makes this call'));

/** An opencode in memory that the test drives step by step, for faults that the real one does not show on command. */
export class FakeApi implements OpencodeApi {
  isIdempotent = false;
  readonly store: Message[] = [];
  readonly prompts: Prompt[] = [];
  status: SessionStatus = { type: 'idle' };
  readonly permissionList: Permission[] = [];
  readonly questionList: Question[] = [];
  readonly sessionList: Session[] = [SESSION];
  /** Called for each prompt; the default accepts it into the store. */
  onPrompt: (prompt: Prompt) => void | Promise<void> = (prompt) => this.accept(prompt);
  onStatuses: () => void = () => {};
  /** Called for each attempt to subscribe. */
  onEvents: () => void = () => {};
  subscriptions = 0;
  readonly fork = unused;
  readonly rename = unused;
  readonly remove = unused;
  readonly listFiles = unused;
  readonly readFile = unused;
  readonly findText = unused;
  readonly findFiles = unused;
  readonly changedMessages = unused;
  readonly changedMessage = unused;
  #streams = new Set<FakeStream>();

  /** Accepts the prompt as opencode does: a second one with the same part id appends nothing. */
  accept(prompt: Prompt): void {
    if (this.store.some(({ info }) => info.id === prompt.messageId)) return;
    this.store.push({
      info: { id: prompt.messageId, role: 'user', time: { created: 2_000 } },
      parts: [{ id: prompt.partId, messageID: prompt.messageId, type: 'text', text: prompt.text }],
    });
  }

  emit(type: string, properties: Record<string, unknown>): void {
    for (const stream of this.#streams) stream.push({ type, properties: { sessionID: SESSION.id, ...properties } });
  }

  setStatus(status: SessionStatus): void {
    this.status = status;
    this.emit('session.status', { status });
  }

  /** A whole answer to `parentID`: busy, one message with one text part, idle. */
  answer(parentID: string, text: string, messageId = successorOf(this.store.at(-1)?.info.id ?? parentID)): void {
    this.setStatus({ type: 'busy' });
    this.begin(parentID, messageId);
    this.emit('message.part.updated', {
      part: { id: `prt_${messageId}`, messageID: messageId, type: 'text', text: '' },
    });
    this.emit('message.part.delta', { messageID: messageId, partID: `prt_${messageId}`, field: 'text', delta: text });
    this.finish(messageId, text);
    this.setStatus({ type: 'idle' });
    this.emit('session.idle', {});
  }

  begin(parentID: string, messageId: string): void {
    const info = { id: messageId, role: 'assistant', parentID, time: { created: 3_000 } } as const;
    this.store.push({ info, parts: [] });
    this.emit('message.updated', { info });
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
    for (const stream of this.#streams) stream.fail(new RequestError('broken', 'the event stream broke'));
    this.#streams.clear();
  }

  events(): Promise<EventStream> {
    return Promise.resolve().then(() => {
      this.subscriptions += 1;
      this.onEvents();
      const stream = new FakeStream();
      this.#streams.add(stream);
      return stream;
    });
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
  questions = (): Promise<Question[]> => Promise.resolve(this.questionList);
  replyPermission = (_: string, id: string): Promise<boolean> => Promise.resolve(removeId(this.permissionList, id));
  replyQuestion = (_: string, id: string): Promise<boolean> => Promise.resolve(removeId(this.questionList, id));
  rejectQuestion = (_: string, id: string): Promise<boolean> => Promise.resolve(removeId(this.questionList, id));
  agents = (): Promise<string[]> => Promise.resolve(['build', 'plan']);
  models = (): Promise<ModelName[]> => Promise.resolve([{ providerID: 'p', modelID: 'm' }]);
  sessions = (): Promise<Session[]> => Promise.resolve(this.sessionList);
  createSession = (): Promise<Session> => Promise.resolve(SESSION);
  abort = (): Promise<void> => Promise.resolve();
  showToast = (): Promise<void> => Promise.resolve();
}

function removeId(list: { readonly id: string }[], id: string): boolean {
  const index = list.findIndex((one) => one.id === id);
  if (index !== -1) list.splice(index, 1);
  return index !== -1;
}

export function successorOf(id: string): string {
  const digits = /^msg_([0-9a-f]{12})/.exec(id)?.[1] ?? '000000000000';
  return `msg_${(BigInt(`0x${digits}`) + 1n).toString(16).padStart(12, '0')}assistant0000`;
}

class FakeStream implements EventStream {
  readonly #items: (ServerEvent | Error)[] = [];
  #closed = false;
  #wake: () => void = () => {};

  push(item: ServerEvent): void {
    this.#items.push(item);
    this.#wake();
  }

  fail(error: Error): void {
    this.#items.push(error);
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ServerEvent, void, undefined> {
    while (!this.#closed) {
      const item = this.#items.shift();
      if (item instanceof Error) throw item;
      if (item === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      } else {
        yield item;
      }
    }
  }
}
