import type { Events } from './events.ts';
import {
  NO_TOKENS,
  type Content,
  type Fields,
  type Message,
  type ModelRef,
  type Store,
  type StoredSession,
} from './store.ts';
import type { TurnParts } from './turns.ts';

type Finish = 'stop' | 'length' | 'tool-calls' | 'content-filter';

/** The assistant messages of one turn: each step of the model makes one, with its events in their order. */
export class AssistantMessage {
  readonly #store: Store;
  readonly #events: Events;
  readonly #session: StoredSession;
  readonly #model: ModelRef;
  #message: Message | undefined;
  #saying:
    | { readonly kind: 'text' | 'reasoning'; readonly ordinal: number; said: string; readonly part: Content }
    | undefined;
  #tool: { readonly id: string; readonly input: Fields } | undefined;
  #attempts = 0;

  constructor({ store, events }: Pick<TurnParts, 'store' | 'events'>, session: StoredSession) {
    this.#store = store;
    this.#events = events;
    this.#session = session;
    this.#model = session.info.model ?? { id: 'scripted-model', providerID: 'scripted' };
  }

  get id(): string {
    return this.begin().id;
  }

  /** Publishes `step.started`, unless the step has begun. */
  begin(): Message {
    if (this.#message) return this.#message;
    const created = this.#store.now();
    const agent = this.#session.info.agent ?? 'build';
    const message: Message = {
      id: this.#store.id('msg'),
      type: 'assistant',
      time: { created },
      agent,
      model: this.#model,
      content: [],
    };
    this.#message = message;
    this.#session.messages.push(message);
    this.#publish('session.step.started', { agent, model: this.#model, started: created });
    return message;
  }

  /** Streams the pieces; awaits `pause`, which may throw, after each. */
  async say(kind: 'text' | 'reasoning', pieces: readonly string[], pause: () => void | Promise<void>): Promise<void> {
    if (this.#saying?.kind !== kind) {
      this.#endText();
      const { content = [] } = this.begin();
      const ordinal = content.filter(({ type }) => type === kind).length;
      // The stored text stays empty until the stream ends.
      const part: Content = { type: kind, text: '' };
      content.push(part);
      this.#saying = { kind, ordinal, said: '', part };
      this.#publish(`session.${kind}.started`, { ordinal });
    }
    for (const delta of pieces) {
      this.#saying.said += delta;
      this.#publish(`session.${kind}.delta`, { ordinal: this.#saying.ordinal, delta });
      await pause();
    }
  }

  /** Starts a tool call; returns its id. */
  call(name: string, input: Fields): string {
    const { content = [] } = this.begin();
    this.#endText();
    const id = this.#store.id('call');
    const text = JSON.stringify(input);
    this.#publish('session.tool.input.started', { id, name });
    this.#publish('session.tool.input.delta', { id, delta: text });
    this.#publish('session.tool.input.ended', { id, text });
    content.push({
      type: 'tool',
      id,
      name,
      state: { status: 'running', input, metadata: {} },
      time: { created: this.#store.now() },
    });
    this.#tool = { id, input };
    this.#publish('session.tool.called', { id, input, executed: false });
    return id;
  }

  succeed(id: string, output: string): string {
    const content = [{ type: 'text', text: output }];
    this.#endTool({ status: 'completed', input: this.#tool?.input ?? {}, content });
    this.#publish('session.tool.success', { id, content, executed: false });
    return output;
  }

  failTool(id: string, message: string): string {
    const error = { type: 'tool', message };
    this.#endTool({ status: 'error', input: this.#tool?.input ?? {}, error });
    this.#publish('session.tool.failed', { id, error, executed: false });
    return message;
  }

  /** Records that the model failed and its request is repeated. */
  retry(error: Fields): void {
    const message = this.begin();
    this.#attempts += 1;
    const at = this.#store.now();
    message['retry'] = { attempt: this.#attempts, at, error };
    this.#publish('session.retry.scheduled', { attempt: this.#attempts, at, error });
  }

  /** Ends the step, if one has begun. */
  end(finish: Finish): void {
    const message = this.#message;
    if (!message) return;
    this.#endText();
    message.time.streamed = this.#store.now();
    this.#publish('session.step.streamed', {});
    message.time.completed = this.#store.now();
    Object.assign(message, { finish, cost: 0, tokens: NO_TOKENS });
    delete message['retry'];
    this.#publish('session.step.ended', { finish, cost: 0, tokens: NO_TOKENS });
    this.#message = undefined;
  }

  /** Fails the step; its content stays. */
  fail(error: unknown): void {
    const message = this.#message;
    if (!message) return;
    if (this.#tool) this.failTool(this.#tool.id, 'Tool execution interrupted');
    this.#endText();
    message.time.completed = this.#store.now();
    Object.assign(message, { finish: 'error', error });
    delete message['retry'];
    this.#publish('session.step.failed', { error });
    this.#message = undefined;
  }

  #endTool(state: Fields): void {
    const part = this.#message?.content?.findLast((one) => one.type === 'tool' && one.id === this.#tool?.id);
    if (part?.type === 'tool') {
      part.state = state;
      part.time['completed'] = this.#store.now();
    }
    this.#tool = undefined;
  }

  #endText(): void {
    if (!this.#saying) return;
    const { kind, ordinal, said, part } = this.#saying;
    if (part.type !== 'tool') part.text = said;
    this.#publish(`session.${kind}.ended`, { ordinal, text: said });
    this.#saying = undefined;
  }

  #publish(type: string, data: Fields): void {
    this.#events.publish(this.#session, type, { assistantMessageID: this.#message?.id, ...data });
  }
}
