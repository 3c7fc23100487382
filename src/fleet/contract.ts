import type { Connection } from '../http/exchange.ts';
import type { Dialect, Instance, Snapshot } from '../model/instance.ts';
import type { SameProcess } from './same-process.ts';

/** An instance that answered just now, with the connection that leads to it. */
export interface Reached {
  readonly instance: Instance;
  readonly connection: Connection;
  /** The instance's. Its server's own where no other is meant, as its `/path` gave it just now. Empty: an OpenCode 2 in all of its directories. */
  readonly directory: string;
  /** The server's own; empty of an OpenCode 2. */
  readonly serverDirectory: string;
  readonly worktree: string;
  readonly version: string;
  readonly dialect: Dialect;
  /** See `EndpointRecord`. */
  readonly endpointId: string;
  /** What leads to the same process. */
  readonly sameProcess: SameProcess;
}

/** An instance of the server to ask, and the way by which it was reached where it was. */
export type Surveyed = Pick<Reached, 'instance'> & Partial<Pick<Reached, 'endpointId'>>;

/** What one server does now. */
export interface ServerSurvey {
  /** In its own directory, and in each other in which it works. */
  readonly instances: readonly Instance[];
  /** The other directories in which it is known what runs. */
  readonly asked: readonly string[];
}

/** The only holder of what is known about instances. Tools ask it and never talk to a source. */
export interface Fleet {
  /** Starts discovery and returns at once. */
  start(): void;
  /** What is known now; nothing is asked. */
  snapshot(): Snapshot;
  /**
   * Resolves shortly after the next change that a snapshot may show, once for a burst, and when `signal` aborts. During a survey it
   * resolves for each burst of answers. Call it before `snapshot()`, so that no change is lost between the two. Never rejects.
   */
  changed(signal: AbortSignal): Promise<void>;
  /** Resolves when the first round has ended, or after one health deadline if it takes longer. Never rejects. */
  ready(): Promise<void>;
  /** Scans every source and probes every endpoint again; bounded like `survey`. What did not answer in time keeps its last state. */
  refresh(signal?: AbortSignal): Promise<Snapshot>;
  /**
   * Asks every listed instance anew for what it is doing, and waits for what has just been registered; within one health
   * deadline after the first round.
   */
  survey(signal?: AbortSignal): Promise<Snapshot>;
  /**
   * The one instance that a person means: exact name, then case-insensitive substring.
   * @throws {QueryError} unknown, ambiguous, or fits one that is gone
   */
  resolve(query: string): Instance;
  /**
   * Looks at the instance again right before it is driven, by each of its ways in order of preference.
   * @throws {UnreachableError} offline, locked, untrusted, unsupported, or something else answers there now
   */
  reach(instance: Instance, signal?: AbortSignal): Promise<Reached>;
  /**
   * Another way to the very process that `reached` leads to, in order of preference: one that was proven to, or that is
   * registered under its name with the id that only that process was given. An announcement on the LAN is one only by proof.
   * Ways in `failed` are not taken.
   * @throws {UnreachableError} none, or none that answers
   */
  reachAnother(reached: Reached, failed: readonly string[], signal?: AbortSignal): Promise<Reached>;
  /**
   * The server may work in the directory of this session of its own, too: the next survey asks.
   */
  worksIn(reached: Pick<Reached, 'instance'>, session: { readonly id: string; readonly directory: string }): void;
  /**
   * Asks the one server what it is doing: in its own directory, and where it works or its sessions were used lately. By the way by
   * which it was reached first.
   */
  surveyServer(reached: Surveyed, signal?: AbortSignal): Promise<ServerSurvey>;
  /** Ends every timer, watcher and request. May be called twice. */
  close(): Promise<void>;
}

/** The message lists what there is, bounded, and says what to call next. */
export class QueryError extends Error {
  override readonly name = 'QueryError';
}

/** The message says what was tried, on what, and what to do. */
export class UnreachableError extends Error {
  override readonly name = 'UnreachableError';
}
