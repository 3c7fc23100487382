import { setTimeout as delay } from 'node:timers/promises';

import type { Gates } from '../gates.ts';
import { toolReply } from '../model/model-script.ts';
import { deferred } from '../wait.ts';
import type { Events } from './events.ts';
import { AssistantMessage } from './assistant-message.ts';
import { stepsOf, type TurnStep } from './scripts.ts';
import {
  NO_TOKENS,
  type Fields,
  type FormSettlement,
  type InboxItem,
  type ModelRef,
  type Outcome,
  type PermissionReply,
  type Store,
  type StoredSession,
  type Waiting,
} from './store.ts';

/** The model's answer when the service resumes a turn that a kill interrupted. */
export const RESUMED_REPLY = 'went on after the restart';

export interface TurnParts {
  readonly store: Store;
  readonly waiting: Waiting;
  readonly events: Events;
  readonly gates: Gates;
  /** The steps of prompts with exactly this text. */
  readonly scripts: ReadonlyMap<string, readonly TurnStep[]>;
  /** Called on each request to the model. Returns a function to call when the connection breaks. */
  readonly onModel: (text: string, session: StoredSession) => () => void;
}

/** Why an execution ends before its inbox is empty. */
class TurnEnd extends Error {
  readonly outcome: 'failed' | 'interrupted';
  readonly details: Fields;
  /** A request was rejected: the message stays unchanged, as in the preview. */
  readonly refused: boolean;

  constructor(outcome: 'failed' | 'interrupted', details: Fields, refused = false) {
    super(outcome);
    this.outcome = outcome;
    this.details = details;
    this.refused = refused;
  }

  /** After an interrupt the preview leaves the inbox; after an error or a refusal it runs it. */
  get leavesInbox(): boolean {
    return this.outcome === 'interrupted' && !this.refused;
  }
}

/** The process was killed: nothing more is written. */
class Killed extends Error {}

interface Execution {
  readonly abort: AbortController;
  readonly ended: Promise<void>;
}

/** Runs the sessions of one process of a fake OpenCode 2. */
export class Turns {
  readonly #parts: TurnParts;
  readonly #running = new Map<string, Execution>();

  constructor(parts: TurnParts) {
    this.#parts = parts;
  }

  get active(): readonly string[] {
    return [...this.#running.keys()];
  }

  /** Runs the inbox, unless the session already runs, which then empties the inbox itself. */
  wake(session: StoredSession): void {
    if (!this.#running.has(session.info.id) && session.inbox.length > 0) this.#start(session, false);
  }

  /** Resumes turns that a kill of the previous process interrupted. */
  resume(): void {
    for (const session of this.#parts.store.sessions.values()) if (session.executing) this.#start(session, true);
  }

  /** Interrupts the turn and leaves the inbox; false if nothing ran. */
  async interrupt(session: StoredSession, reason: 'user' | 'shutdown'): Promise<boolean> {
    const execution = this.#running.get(session.info.id);
    execution?.abort.abort(new TurnEnd('interrupted', { reason }));
    await execution?.ended;
    return execution !== undefined;
  }

  /** Resolves when the session does not run. */
  async idle(session: StoredSession): Promise<void> {
    for (let execution; (execution = this.#running.get(session.info.id));) await execution.ended;
  }

  /** Stops all turns as kill -9 would. */
  async kill(): Promise<void> {
    const running = [...this.#running.values()];
    for (const { abort } of running) abort.abort(new Killed());
    await Promise.all(running.map(({ ended }) => ended));
  }

  #start(session: StoredSession, resumed: boolean): void {
    const abort = new AbortController();
    const ended = deferred<void>();
    this.#running.set(session.info.id, { abort, ended: ended.promise });
    session.executing = true;
    void this.#execute(session, abort.signal, resumed).finally(() => ended.resolve());
  }

  /** Runs one busy period, which may contain several prompts. */
  async #execute(session: StoredSession, signal: AbortSignal, resumed: boolean): Promise<void> {
    const { events, waiting, store } = this.#parts;
    const { info } = session;
    events.publish(session, 'session.execution.started', {});
    let outcome: Outcome = 'succeeded';
    let details: Fields = {};
    let leavesInbox = false;
    try {
      if (resumed) await this.#resume(session, signal);
      while (session.inbox.length > 0) await this.#runNext(session, signal);
    } catch (error) {
      waiting.withdraw(info.id);
      if (!(error instanceof TurnEnd)) {
        this.#running.delete(info.id);
        if (error instanceof Killed) return;
        throw error;
      }
      ({ outcome, details, leavesInbox } = error);
    }
    info.outcome = outcome;
    info.time.idle = info.time.updated = store.now();
    // The next start of the service resumes the turn.
    session.executing = details['reason'] === 'shutdown';
    session.messages.push({
      id: store.id('msg'),
      type: 'idle',
      time: { created: info.time.idle },
      outcome,
      ...(outcome === 'failed' ? details : {}),
    });
    events.publish(session, `session.execution.${outcome}`, details);
    // The preview does this within 2 ms after its last event.
    this.#running.delete(info.id);
    if (!leavesInbox) this.wake(session);
  }

  async #resume(session: StoredSession, signal: AbortSignal): Promise<void> {
    const text = 'The service was restarted. Go on.';
    this.#parts.events.publish(session, 'session.synthetic', { text });
    const time = { created: this.#parts.store.now() };
    session.messages.push({ id: this.#parts.store.id('msg'), type: 'synthetic', time, text });
    await this.#answer(session, [{ kind: 'say', chunks: [RESUMED_REPLY] }], signal);
  }

  /** Delivers all steers at once, and the model answers the last one; without steers, runs the first queued item. */
  async #runNext(session: StoredSession, signal: AbortSignal): Promise<void> {
    const text = this.#deliverSteers(session);
    if (text !== undefined) return await this.#turn(session, text, signal);
    const [item] = session.inbox;
    if (!item) return;
    const queued = this.#deliver(session, item);
    if (item.type === 'user') await this.#turn(session, queued, signal);
    else this.#compact(session, 'Scripted summary of what was said', { reason: 'manual', inputID: item.id });
  }

  /** Delivers all steers; returns the text of the last one, if any. */
  #deliverSteers(session: StoredSession): string | undefined {
    const steers = session.inbox.filter(({ type, delivery }) => type === 'user' && delivery === 'steer');
    return steers.map((item) => this.#deliver(session, item)).at(-1);
  }

  /** Moves the item from the inbox to the messages, and returns its text. */
  #deliver(session: StoredSession, item: InboxItem): string {
    const { store, events } = this.#parts;
    session.inbox.splice(session.inbox.indexOf(item), 1);
    events.publish(session, 'session.inbox.delivered', { inboxID: item.id });
    const { text = '' } = item.payload;
    if (item.type === 'user')
      session.messages.push({ id: item.id, type: 'user', time: { created: store.now() }, text });
    session.info.time.updated = store.now();
    return text;
  }

  async #turn(session: StoredSession, text: string, signal: AbortSignal): Promise<void> {
    const onAbort = this.#parts.onModel(text, session);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const steer = await this.#answer(session, this.#parts.scripts.get(text) ?? stepsOf(text), signal, text);
      if (steer !== undefined) await this.#turn(session, steer, signal);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Returns the text of a prompt that was delivered after a step, which the model answers next. */
  async #answer(
    session: StoredSession,
    steps: readonly TurnStep[],
    signal: AbortSignal,
    text = '',
  ): Promise<string | undefined> {
    const message = new AssistantMessage(this.#parts, session);
    let result = '';
    try {
      for (const step of steps) {
        switch (step.kind) {
          case 'say':
          case 'think':
            await message.say(step.kind === 'say' ? 'text' : 'reasoning', step.chunks, async () => {
              if (step.everyMs) await delay(step.everyMs);
              signal.throwIfAborted();
            });
            break;
          case 'gate':
            await this.#parts.gates.pass(step.name, signal);
            signal.throwIfAborted();
            break;
          case 'report':
            await message.say('text', [toolReply(step.tool, result)], () => signal.throwIfAborted());
            break;
          case 'tool':
          case 'form':
          case 'subagent': {
            result = await this.#call(session, message, step, signal);
            message.end('tool-calls');
            const steer = this.#deliverSteers(session);
            if (steer !== undefined) return steer;
            break;
          }
          case 'retry':
            message.retry(providerError(step));
            this.#parts.onModel(text, session);
            break;
          case 'fail':
            throw new TurnEnd('failed', { error: providerError(step) });
          case 'compact':
            message.end('stop');
            this.#compact(session, step.summary, { reason: 'auto' });
            break;
          case 'finish':
            message.end(step.reason);
        }
      }
      message.end('stop');
      return undefined;
    } catch (error) {
      if (error instanceof TurnEnd && !error.refused) {
        if (error.outcome === 'failed') message.begin();
        message.fail(error.details['error'] ?? INTERRUPTED);
      }
      throw error;
    }
  }

  async #call(
    session: StoredSession,
    message: AssistantMessage,
    step: TurnStep & { readonly kind: 'tool' | 'form' | 'subagent' },
    signal: AbortSignal,
  ): Promise<string> {
    if (step.kind === 'form') {
      const call = message.call('question', { questions: step.fields.map(({ title }) => title ?? '') });
      const { title, fields } = step;
      const form = { id: this.#parts.store.id('frm'), sessionID: session.info.id, title, fields };
      const settled = await this.#ask<FormSettlement>(signal, (settle) => {
        this.#parts.waiting.forms.set(form.id, { request: form, settle });
        this.#parts.events.publish(session, 'form.created', { form });
      });
      if (settled.status === 'cancelled') return this.#rejectCall(message, call, settled.message);
      const answers = fields.map(({ key, title = key }) => `"${title}"="${String(settled.answer[key] ?? '')}"`);
      return message.succeed(call, `User has answered your questions: ${answers.join(', ')}.`);
    }
    if (step.kind === 'subagent') {
      const call = message.call('subagent', { prompt: step.prompt });
      return message.succeed(call, await this.#delegate(session, step.prompt, signal));
    }
    const call = message.call(step.name, step.input);
    if (step.asks) {
      const request = {
        id: this.#parts.store.id('per'),
        sessionID: session.info.id,
        ...step.asks,
        source: { type: 'tool', messageID: message.id, id: call },
      };
      const reply = await this.#ask<PermissionReply>(signal, (settle) => {
        this.#parts.waiting.permissions.set(request.id, { request, settle });
        this.#parts.events.publish(session, 'permission.asked', request);
      });
      if (reply.decision === 'reject') return this.#rejectCall(message, call, reply.message);
    }
    if (step.fails !== undefined) return message.failTool(call, step.fails);
    return message.succeed(call, step.output ?? '');
  }

  /** A bare rejection ends the turn; after one with a message the model continues. */
  #rejectCall(message: AssistantMessage, call: string, reason: string | undefined): string {
    if (reason !== undefined) return message.failTool(call, reason);
    message.failTool(call, 'The user declined');
    throw new TurnEnd('interrupted', { reason: 'user' }, true);
  }

  async #ask<Settlement>(
    signal: AbortSignal,
    ask: (settle: (settlement: Settlement) => void) => void,
  ): Promise<Settlement> {
    const settled = deferred<Settlement>();
    const onAbort = (): void => settled.reject(signal.reason instanceof Error ? signal.reason : new Killed());
    signal.addEventListener('abort', onAbort, { once: true });
    ask((settlement) => settled.resolve(settlement));
    try {
      return await settled.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Runs the prompt in a child session, and returns its last text. */
  async #delegate(parent: StoredSession, prompt: string, signal: AbortSignal): Promise<string> {
    const child = createSession(this.#parts, {
      parentID: parent.info.id,
      title: 'Scripted sub-agent',
      directory: parent.info.location.directory,
    });
    admit(this.#parts, child, {
      id: this.#parts.store.id('msg'),
      type: 'user',
      payload: { text: prompt },
      delivery: 'steer',
    });
    this.wake(child);
    const stop = (): void => this.#running.get(child.info.id)?.abort.abort(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    await this.idle(child);
    signal.removeEventListener('abort', stop);
    signal.throwIfAborted();
    const last = child.messages.findLast(({ type }) => type === 'assistant');
    return (last?.content ?? []).map((part) => (part.type === 'text' ? part.text : '')).join('');
  }

  #compact(
    session: StoredSession,
    summary: string,
    origin: { readonly reason: 'auto' | 'manual'; readonly inputID?: string },
  ): void {
    const { store, events } = this.#parts;
    const { reason } = origin;
    events.publish(session, 'session.compaction.started', origin);
    events.publish(session, 'session.compaction.delta', { text: summary });
    const time = { created: store.now() };
    session.messages.push({ id: store.id('msg'), type: 'compaction', time, status: 'completed', reason, summary });
    events.publish(session, 'session.compaction.ended', { reason, text: summary });
  }
}

const INTERRUPTED = { type: 'aborted', message: 'Provider turn interrupted' } as const;

function providerError({ message, status }: { readonly message: string; readonly status?: number }): Fields {
  return { type: 'provider', message, status };
}

export interface NewSession {
  readonly id?: string | undefined;
  readonly parentID?: string;
  readonly title?: string | undefined;
  readonly agent?: string | undefined;
  readonly model?: ModelRef | undefined;
  readonly directory: string;
}

export function createSession(
  { store, events }: Pick<TurnParts, 'store' | 'events'>,
  wanted: NewSession,
): StoredSession {
  const { id = store.id('ses'), directory, ...named } = wanted;
  const created = store.now();
  const session: StoredSession = {
    info: {
      id,
      ...named,
      projectID: 'global',
      cost: 0,
      tokens: NO_TOKENS,
      time: { created, updated: created },
      location: { directory },
    },
    messages: [],
    inbox: [],
    log: [],
    diff: [],
    executing: false,
  };
  store.sessions.set(id, session);
  const { projectID, location } = session.info;
  events.publish(session, 'session.created', { ...named, projectID, location, slug: 'scripted', version: '2.1.2' });
  return session;
}

/** Adds a prompt to the inbox; waking the session runs it. */
export function admit(
  { store, events }: Pick<TurnParts, 'store' | 'events'>,
  session: StoredSession,
  wanted: Pick<InboxItem, 'id' | 'type' | 'payload' | 'delivery'>,
): InboxItem {
  const item: InboxItem = { ...wanted, sessionID: session.info.id, time: { created: store.now() } };
  session.inbox.push(item);
  store.admissions.set(item.id, item);
  session.info.time.updated = store.now();
  const { type, payload, delivery } = item;
  events.publish(session, 'session.inbox.enqueued', { inboxID: item.id, item: { type, payload, delivery } });
  return item;
}
