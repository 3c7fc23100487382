import type { EventStream } from './events.ts';
import type { ChangedMessage, FileContent, FileNode, TextMatch } from './inspect-schema.ts';
import type { Message, Permission, Question, Session, SessionStatus } from './schema.ts';

/** A prompt of ours. Made once, before the first attempt; every further attempt sends this same value, so that it can never run twice. */
export interface Prompt {
  readonly sessionId: string;
  readonly messageId: string;
  readonly partId: string;
  readonly text: string;
  /** Default: the session's, then the configured one. */
  readonly agent?: string;
  readonly model?: ModelName;
}

/** What this generation of opencode cannot do, or not like this. The message says what to do; nothing was done. */
export class NotPossibleError extends Error {
  override readonly name = 'NotPossibleError';
}

/** As the provider and opencode name it. */
export interface ModelName {
  readonly providerID: string;
  readonly modelID: string;
}

/** How a permission request is settled; `always`: also what fits the same patterns later on. */
export type PermissionReply = 'once' | 'always' | 'reject';

export interface Page<M> {
  /** Oldest first. */
  readonly messages: readonly M[];
  /** Give it as `before` for the page of older ones; undefined at the beginning of the session. */
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
 * The calls that this program makes to one opencode server, in its own vocabulary, with checked answers. Every call is
 * bounded in time and size and rejects with `RequestError`.
 *
 * `directory` parameters are code execution on the other side (opencode loads that
 * directory's plugins and MCP servers): only an instance's own `/path` or a session of its own may be
 * their origin. Calls with a session id need none.
 */
export interface OpencodeApi {
  /** The same prompt sent again, by whatever way and at any time, is the same one. Else only while its process is known to live. */
  readonly isIdempotent: boolean;
  /** Sessions of the instance's project, most recently updated first; of exactly one directory if it is given. */
  sessions(query: SessionQuery): Promise<readonly Session[]>;
  /** Undefined where there is none with this id. */
  session(sessionId: string): Promise<Session | undefined>;
  /** In the server's own directory where none is named. */
  createSession(title?: string, directory?: string): Promise<Session>;
  /** What is not idle, by session id. */
  statuses(directory: string): Promise<ReadonlyMap<string, SessionStatus>>;
  messages(sessionId: string, query: PageQuery): Promise<MessagePage>;
  /** Undefined where there is none with this id. */
  message(sessionId: string, messageId: string): Promise<Message | undefined>;
  permissions(directory: string): Promise<readonly Permission[]>;
  questions(directory: string): Promise<readonly Question[]>;
  /** False where no such request waits in that directory any more. opencode answers true for a stale one too: verify by status. */
  replyPermission(directory: string, id: string, reply: PermissionReply, message?: string): Promise<boolean>;
  /** One list of labels for each question. False as above. */
  replyQuestion(directory: string, id: string, answers: readonly (readonly string[])[]): Promise<boolean>;
  /** False as above. */
  rejectQuestion(directory: string, id: string): Promise<boolean>;
  /** Names of the agents that can be sent to. */
  agents(directory: string): Promise<readonly string[]>;
  models(directory: string): Promise<readonly ModelName[]>;
  /** Resolves when opencode has accepted the prompt; it starts up to a second later. */
  prompt(prompt: Prompt): Promise<void>;
  /** opencode answers true whether or not something ran: verify by status. */
  abort(sessionId: string): Promise<void>;
  /** Shows a line in the terminal that has this directory open; true whether or not there is one. */
  showToast(directory: string, message: string): Promise<void>;
  events(directory: string, signal?: AbortSignal): Promise<EventStream>;
  /** A copy of what was said before `beforeMessageId`, or of all. An id that the session does not have copies all. */
  fork(sessionId: string, beforeMessageId?: string): Promise<Session>;
  rename(sessionId: string, title: string): Promise<Session>;
  /**
   * With its sub-agents' sessions. False where there was none. What runs in one goes on without a store: 1.18.33 then asks
   * the model again and again, and shows it as retrying, until it is aborted.
   */
  remove(sessionId: string): Promise<boolean>;
  /**
   * One folder, not what lies below; 500 where there is none. Paths are relative to `directory`. opencode (1.18.10 and 1.18.33)
   * answers 500 without a reason to a path that leads out of it, by `..`, as an absolute path or through a symbolic link, follows
   * links that stay inside, and lists no links.
   */
  listFiles(directory: string, path: string): Promise<readonly FileNode[]>;
  /** A file that is not there is an empty text; a folder, or a text that is not UTF-8, is a 500. */
  readFile(directory: string, path: string): Promise<FileContent>;
  /**
   * At most the first 10 lines that fit a regular expression of ripgrep's; ignored files are left out. 500 where the
   * pattern is none, a line found is longer than 64 KB, or the machine has no ripgrep and cannot download it.
   */
  findText(directory: string, pattern: string): Promise<readonly TextMatch[]>;
  /** Files whose path is like `query`, best first. `limit` is 200 at most. */
  findFiles(directory: string, query: string, limit: number): Promise<readonly string[]>;
  /**
   * As `messages`, with what opencode says that each turn changed. `GET /session/:id/diff` gives the same for one message, and for a
   * whole session always nothing (1.18.10 and 1.18.33).
   */
  changedMessages(sessionId: string, query: PageQuery): Promise<ChangedPage>;
  /** Undefined where there is none with this id. */
  changedMessage(sessionId: string, messageId: string): Promise<ChangedMessage | undefined>;
}
