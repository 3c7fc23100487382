import type { PermissionRequest, QuestionRequest, SessionStatus } from '@opencode-ai/sdk/v2/client';

import {
  assistantMessage,
  newId,
  newSession,
  userMessage,
  type FakeMessage,
  type FakeSession,
} from './fake-objects.ts';

type Emit = (type: string, properties: Readonly<Record<string, unknown>>) => void;

/** A prompt as a client sends it to `prompt_async`. */
export interface FakePrompt {
  readonly messageID?: string;
  readonly parts?: ReadonlyArray<{ readonly id?: string; readonly text?: string }>;
}

interface OpenPart {
  readonly id: string;
  readonly messageID: string;
  readonly sessionID: string;
  readonly type: string;
  readonly text: string;
  readonly time: { readonly start: number };
}

/** The data of a fake opencode; each change emits events in opencode's order. */
export class FakeState {
  readonly directory: string;
  readonly version: string;
  readonly sessions = new Map<string, FakeSession>();
  readonly messages = new Map<string, FakeMessage[]>();
  /** Listed by `GET /session/status`; change it as a test needs. */
  readonly statuses = new Map<string, SessionStatus>();
  readonly permissions = new Map<string, PermissionRequest>();
  readonly questions = new Map<string, QuestionRequest>();
  /** Content by path from the directory. */
  readonly files = new Map<string, string>();
  /** Toasts for the terminal, with their directory. */
  readonly toasts: string[] = [];
  /** Accepted prompts, oldest first. */
  readonly prompts: Array<{ readonly sessionID: string; readonly body: FakePrompt }> = [];
  /** Parts that have not ended, by session id. */
  readonly #openParts = new Map<string, OpenPart>();
  readonly #emit: Emit;

  constructor(directory: string, version: string, emit: Emit) {
    this.directory = directory;
    this.version = version;
    this.#emit = emit;
  }

  addSession(fields: Partial<FakeSession> = {}): FakeSession {
    const session = newSession({ directory: this.directory, version: this.version, ...fields });
    this.sessions.set(session.id, session);
    this.messages.set(session.id, []);
    this.#emit('session.created', { sessionID: session.id, info: session });
    return session;
  }

  /** Removes a session and its sub-agents' sessions; running turns continue, as in opencode. False if there is no such session. */
  removeSession(id: string): boolean {
    const session = this.sessions.get(id);
    if (!session) return false;
    this.sessions.delete(id);
    this.messages.delete(id);
    for (const child of this.sessions.values()) if (child.parentID === id) this.removeSession(child.id);
    this.#emit('session.deleted', { sessionID: id, info: session });
    return true;
  }

  /** Copies the messages before `messageID`, or all if it is unknown. */
  forkSession(source: FakeSession, messageID: string | undefined): FakeSession {
    const fork = this.addSession({ title: `${source.title} (fork #1)` });
    const all = this.messages.get(source.id) ?? [];
    const end = all.findIndex(({ info }) => info.id === messageID);
    this.messages.set(fork.id, all.slice(0, end === -1 ? all.length : end));
    return fork;
  }

  addPermission(fields: Partial<PermissionRequest> & Pick<PermissionRequest, 'sessionID'>): PermissionRequest {
    const bash = { permission: 'bash', patterns: ['ls'], metadata: { command: 'ls' }, always: ['ls *'] };
    const permission = { id: newId('per'), ...bash, ...fields };
    this.permissions.set(permission.id, permission);
    this.#emit('permission.asked', { ...permission });
    return permission;
  }

  addQuestion(fields: Partial<QuestionRequest> & Pick<QuestionRequest, 'sessionID'>): QuestionRequest {
    const options = ['Yes', 'No'].map((label) => ({ label, description: `Choose ${label}` }));
    const question = { id: newId('que'), questions: [{ question: 'Go on?', header: 'Go on?', options }], ...fields };
    this.questions.set(question.id, question);
    this.#emit('question.asked', { ...question });
    return question;
  }

  /** Stores a user's message. */
  ask(sessionID: string, text: string, body: FakePrompt = {}): FakeMessage {
    const [part] = body.parts ?? [];
    const question = userMessage(sessionID, text, {
      ...(body.messageID === undefined ? {} : { message: body.messageID }),
      ...(part?.id === undefined ? {} : { part: part.id }),
    });
    const session = this.sessions.get(sessionID);
    if (session) this.sessions.set(sessionID, { ...session, time: { ...session.time, updated: Date.now() } });
    this.messages.get(sessionID)?.push(question);
    this.#emit('message.updated', { sessionID, info: question.info });
    this.#emit('message.part.updated', { sessionID, part: question.parts[0], time: question.info.time.created });
    return question;
  }

  /** Accepts a prompt: stores the user's message, begins the assistant's, marks the session busy. */
  begin(sessionID: string, text: string, body: FakePrompt = {}): void {
    const question = this.ask(sessionID, text, body);
    const answer = assistantMessage(sessionID, question.info.id, this.directory);
    this.prompts.push({ sessionID, body });
    this.messages.get(sessionID)?.push(answer);
    this.statuses.set(sessionID, { type: 'busy' });
    this.#emit('session.status', { sessionID, status: { type: 'busy' } });
    this.#emit('message.updated', { sessionID, info: answer.info });
  }

  /** Streams text of the running turn's part, which is stored when it ends, as in opencode. */
  say(sessionID: string, text: string): void {
    const message = this.#running(sessionID);
    if (!message) throw new Error(`Expected a running turn in ${sessionID}, got none`);
    const messageID = message.info.id;
    const openPart = this.#openParts.get(sessionID) ?? this.#beginPart(sessionID, messageID);
    this.#openParts.set(sessionID, { ...openPart, text: openPart.text + text });
    this.#emit('message.part.delta', { sessionID, messageID, partID: openPart.id, field: 'text', delta: text });
  }

  /** Ends the running turn with this text, after what it streamed. */
  finish(sessionID: string, text: string): void {
    this.say(sessionID, text);
    const message = this.#running(sessionID);
    const openPart = this.#openParts.get(sessionID);
    if (!message || !openPart) return;
    this.#openParts.delete(sessionID);
    const now = Date.now();
    const endedPart = { ...openPart, time: { ...openPart.time, end: now } };
    this.#emit('message.part.updated', { sessionID, part: endedPart, time: now });
    this.#complete(message, { finish: 'stop' }, [endedPart]);
    this.#idle(sessionID);
  }

  #beginPart(sessionID: string, messageID: string): OpenPart {
    const now = Date.now();
    const part = { id: newId('prt'), messageID, sessionID, type: 'text', text: '', time: { start: now } };
    this.#emit('message.part.updated', { sessionID, part, time: now });
    return part;
  }

  /** Like opencode, emits one idle event for any id, and two if a turn ran. */
  abort(sessionID: string): void {
    const message = this.#running(sessionID);
    if (!message) {
      this.#idle(sessionID);
      return;
    }
    const error = { name: 'MessageAbortedError', data: { message: 'Aborted' } };
    this.#openParts.delete(sessionID);
    this.#emit('session.error', { sessionID, error });
    this.#idle(sessionID);
    this.#complete(message, { error }, []);
    this.#idle(sessionID);
  }

  /** Removes a request and emits its event; false if there is none. */
  settle(requestID: string, event: string, answer: object): boolean {
    const requests = event.startsWith('permission') ? this.permissions : this.questions;
    const request = requests.get(requestID);
    if (!request) return false;
    requests.delete(requestID);
    this.#emit(event, { sessionID: request.sessionID, requestID, ...answer });
    return true;
  }

  #running(sessionID: string): FakeMessage | undefined {
    return this.messages
      .get(sessionID)
      ?.find(({ info }) => info.role === 'assistant' && info.time.completed === undefined);
  }

  #complete(message: FakeMessage, result: Readonly<Record<string, unknown>>, parts: FakeMessage['parts']): void {
    const { sessionID } = message.info;
    const messages = this.messages.get(sessionID) ?? [];
    const info = { ...message.info, ...result, time: { ...message.info.time, completed: Date.now() } };
    messages[messages.indexOf(message)] = { info, parts: [...message.parts, ...parts] };
    this.#emit('message.updated', { sessionID, info });
  }

  #idle(sessionID: string): void {
    this.statuses.delete(sessionID);
    this.#emit('session.status', { sessionID, status: { type: 'idle' } });
    this.#emit('session.idle', { sessionID });
  }
}
