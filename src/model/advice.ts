import { quoteName, shellWord } from '../base/plain-text.ts';

/**
 * The next step that a message advises depends on who reads it: a model calls a tool, a person runs a command or uses the page.
 * Such a message is a function of the reader's `ReaderWords`; each kind of reader has one set of them.
 */
export type AdvisedText = string | ((words: ReaderWords) => string);

/** Names of instances are passed as they are; each reader's words quote them. */
export interface ReaderWords {
  /** Repeats the call, as an imperative. */
  readonly again: string;
  /** Shows what every instance does, as an imperative. */
  readonly look: string;
  /** Asks every instance again first, as an imperative. */
  readonly refresh: string;
  /** Shows what one instance does. */
  readonly status: string;
  /** Lists sessions. */
  readonly sessions: string;
  /** Lists the sessions of an instance. */
  readonly sessionsOf: (name: string) => string;
  readonly respond: string;
  /** Settles one request. */
  readonly respondTo: (name: string, requestId: string) => string;
  /** Follows a turn, or reads it. */
  readonly follow: (name: string, sessionId: string, messageId: string | undefined) => string;
  /** Sends although the session is busy, as an imperative. */
  readonly sendAnyway: string;
  /** What to run for an instance whose password does not fit, in sentences. */
  readonly doctor: (name: string) => string;
  /** The session to use, as an argument. */
  readonly session: string;
  /** The request to settle, as an argument. */
  readonly request: string;
  /** The argument with an id under which a message is sent only once. */
  readonly messageKey: string;
  readonly reply: (reply: string) => string;
  readonly answers: string;
}

/** Words for a model. The default, because a message without a known reader goes to a model or into a log. */
export const TOOL_WORDS: ReaderWords = {
  again: 'call again',
  look: 'call instances',
  refresh: 'call refresh_instances',
  status: 'get_status',
  sessions: 'list_sessions',
  sessionsOf: (name) => `list_sessions with instance ${quoteName(name)}`,
  respond: 'respond',
  respondTo: (name, requestId) => `respond (instance ${quoteName(name)}, request_id ${requestId})`,
  follow: (name, sessionId, messageId) =>
    `wait with instances [${quoteName(name)}] or read with instance ${quoteName(name)}, session_id ${sessionId}${messageId === undefined ? '' : ` and message_id ${messageId}`}`,
  sendAnyway:
    'send to another session (create_session), or with when_busy: queue (after what runs) or abort: true (stops it first)',
  doctor: (name) =>
    `Run opencode-mcp doctor ${shellWord(name)} where this server runs: it reports whether a password was found, and where the right one goes. After a change of the configuration file or the environment, restart this server.`,
  session: 'session_id',
  request: 'request_id',
  messageKey: 'request_id',
  reply: (reply) => `reply: ${reply}`,
  answers: 'answers',
};

/** An error whose message advises what to do. `message` has it in `TOOL_WORDS`. */
export class AdvisedError extends Error {
  readonly advice: AdvisedText;

  constructor(advice: AdvisedText, options?: ErrorOptions) {
    super(inWords(advice, TOOL_WORDS), options);
    this.advice = advice;
  }
}

export function inWords(advice: AdvisedText, words: ReaderWords): string {
  return typeof advice === 'string' ? advice : advice(words);
}

/** An error's message, in the reader's words. */
export function messageIn(words: ReaderWords, error: unknown): string {
  if (error instanceof AdvisedError) return inWords(error.advice, words);
  return error instanceof Error ? error.message : String(error);
}

/** An imperative of `ReaderWords` at the beginning of a sentence. */
export function capitalized(imperative: string): string {
  return imperative.charAt(0).toUpperCase() + imperative.slice(1);
}
