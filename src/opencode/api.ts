import type { EventStream } from './events.ts';
import type { ChangedMessage, FileContent, FileNode, TextMatch } from './inspect-schema.ts';
import type { Message, Permission, Question, Session, SessionStatus } from './schema.ts';

/** Made once, before the first attempt. Further attempts send the same value, so that the prompt cannot run twice. */
export interface Prompt {
  readonly sessionId: string;
  readonly messageId: string;
  readonly partId: string;
  readonly text: string;
  /** Defaults to the session's, then to the configured one. */
  readonly agent?: string;
  readonly model?: ModelName;
}

/** This generation of opencode cannot do it, or not like this. Nothing was done; the message says what to do. */
export class NotPossibleError extends Error {
  override readonly name = 'NotPossibleError';
}

export interface ModelName {
  readonly providerID: string;
  readonly modelID: string;
}

/** `always` also allows later requests with the same patterns. */
export type PermissionReply = 'once' | 'always' | 'reject';

export interface Page<M> {
  /** Oldest first. */
  readonly messages: readonly M[];
  /** The `before` of the next older page; undefined at the beginning of the session. */
  readonly olderCursor?: string;
}
export type MessagePage = Page<Message>;
export type ChangedPage = Page<ChangedMessage>;

export interface PageQuery {
  readonly limit: number;
  readonly before?: string | undefined;
}

export interface SessionQuery {
  readonly directory?: string;
  readonly rootsOnly?: boolean;
  readonly search?: string;
  readonly limit?: number;
}

/**
 * The calls to one opencode server, the same for both generations, with checked answers. Every call is bounded in time and size and
 * rejects with `RequestError`.
 *
 * A `directory` is code execution on the other side: opencode loads its plugins and MCP servers. It must come from the
 * instance's own `/path` or one of its sessions.
 */
export interface OpencodeApi {
  /** A repeated prompt runs once, by any endpoint and at any time. If false, only as long as the process is known to live. */
  readonly isIdempotent: boolean;
  /** Sessions of the instance's project, most recently updated first; of exactly one directory if it is given. */
  sessions(query: SessionQuery): Promise<readonly Session[]>;
  /** Undefined if there is none with this id. */
  session(sessionId: string): Promise<Session | undefined>;
  /** In the server's own directory by default. */
  createSession(title?: string, directory?: string): Promise<Session>;
  /** Of sessions that are not idle, by id. */
  statuses(directory: string): Promise<ReadonlyMap<string, SessionStatus>>;
  messages(sessionId: string, query: PageQuery): Promise<MessagePage>;
  /** Undefined if there is none with this id. */
  message(sessionId: string, messageId: string): Promise<Message | undefined>;
  permissions(directory: string): Promise<readonly Permission[]>;
  questions(directory: string): Promise<readonly Question[]>;
  /** False if no such request waits in that directory. opencode also answers true for a stale one: verify by status. */
  replyPermission(directory: string, id: string, reply: PermissionReply, message?: string): Promise<boolean>;
  /** One list of labels for each question. False as above. */
  replyQuestion(directory: string, id: string, answers: readonly (readonly string[])[]): Promise<boolean>;
  /** False as above. */
  rejectQuestion(directory: string, id: string): Promise<boolean>;
  /** Names of agents that take prompts. */
  agents(directory: string): Promise<readonly string[]>;
  models(directory: string): Promise<readonly ModelName[]>;
  /** Resolves when opencode has accepted the prompt; it starts up to a second later. */
  prompt(prompt: Prompt): Promise<void>;
  /** Resolves whether or not something ran: verify by status. */
  abort(sessionId: string): Promise<void>;
  /** Shows a line in the terminal that has this directory open. Resolves whether or not there is one. */
  showToast(directory: string, message: string): Promise<void>;
  events(directory: string, signal?: AbortSignal): Promise<EventStream>;
  /** Copies the messages before `beforeMessageId`, or all of them; also all for an id that the session does not have. */
  fork(sessionId: string, beforeMessageId?: string): Promise<Session>;
  rename(sessionId: string, title: string): Promise<Session>;
  /**
   * Deletes a session and those of its sub-agents. False if there was none. A running turn goes on without a store: 1.18.33 then
   * asks the model again and again, and shows the session as retrying, until it is aborted.
   */
  remove(sessionId: string): Promise<boolean>;
  /**
   * Lists one folder, not recursively; 500 if there is none. Paths are relative to `directory`. opencode (1.18.10 and 1.18.33) answers
   * 500 without a reason to a path that leads out of it (by `..`, absolute, or through a link), follows links inside, and lists no links.
   */
  listFiles(directory: string, path: string): Promise<readonly FileNode[]>;
  /** A missing file is an empty text; a folder, or a text that is not UTF-8, is a 500. */
  readFile(directory: string, path: string): Promise<FileContent>;
  /**
   * The first 10 lines that match a regular expression of ripgrep, without ignored files. 500 if the pattern is malformed, a line is
   * longer than 64 KB, or the machine has no ripgrep and cannot download it.
   */
  findText(directory: string, pattern: string): Promise<readonly TextMatch[]>;
  /** Files whose path resembles `query`, best first. `limit` is at most 200. */
  findFiles(directory: string, query: string, limit: number): Promise<readonly string[]>;
  /**
   * As `messages`, with the files that each turn changed. `GET /session/:id/diff` gives the same for one message, and always nothing for
   * a whole session (1.18.10 and 1.18.33).
   */
  changedMessages(sessionId: string, query: PageQuery): Promise<ChangedPage>;
  /** Undefined if there is none with this id. */
  changedMessage(sessionId: string, messageId: string): Promise<ChangedMessage | undefined>;
}
