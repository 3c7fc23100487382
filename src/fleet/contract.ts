import { AdvisedError } from '../model/advice.ts';
import type { Connection } from '../http/exchange.ts';
import type { Dialect, Instance, Snapshot } from '../model/instance.ts';
import type { SameProcess } from './same-process.ts';

/** An instance that answered just now, with the connection that leads to it. */
export interface Reached {
  readonly instance: Instance;
  readonly connection: Connection;
  /** The instance's directory; by default its server's own, as `/path` gave it just now. Empty for an OpenCode 2 as a whole. */
  readonly directory: string;
  /** The server's own; empty for an OpenCode 2. */
  readonly serverDirectory: string;
  readonly worktree: string;
  readonly version: string;
  readonly dialect: Dialect;
  /** See `EndpointRecord`. */
  readonly endpointId: string;
  readonly sameProcess: SameProcess;
}

/** An instance of the server to ask, and the endpoint through which it was reached, if it was. */
export type Surveyed = Pick<Reached, 'instance'> & Partial<Pick<Reached, 'endpointId'>>;

export interface ServerSurvey {
  /** One for its own directory, and one for each other in which it works. */
  readonly instances: readonly Instance[];
  /** The other directories whose status is known. */
  readonly asked: readonly string[];
}

/** The only holder of state about instances. Tools ask it and never talk to a source. */
export interface Fleet {
  /** Starts discovery and returns immediately. */
  start(): void;
  /** What is known now; sends no request. */
  snapshot(): Snapshot;
  /**
   * Resolves shortly after the next change that a snapshot may show, once for a burst, and when `signal` aborts. During a survey it
   * resolves for each burst of answers. Call it before `snapshot()`, so that no change is lost between the two. Never rejects.
   */
  changed(signal: AbortSignal): Promise<void>;
  /** Resolves when the first round has ended, or after one health deadline if it takes longer. Never rejects. */
  ready(): Promise<void>;
  /** Scans every source and probes every endpoint again; bounded like `survey`. Endpoints that do not answer in time keep their last state. */
  refresh(signal?: AbortSignal): Promise<Snapshot>;
  /** Asks every listed instance what it is doing, and waits for new registrations; takes at most one health deadline after the first round. */
  survey(signal?: AbortSignal): Promise<Snapshot>;
  /**
   * Finds the one instance that a person means: by exact name, then by case-insensitive substring.
   * @throws {QueryError} unknown, ambiguous, or fits one that is gone
   */
  resolve(query: string): Instance;
  /**
   * Probes the instance right before it is driven, through its endpoints in order of preference.
   * @throws {UnreachableError} offline, locked, untrusted, unsupported, or something else answers there now
   */
  reach(instance: Instance, signal?: AbortSignal): Promise<Reached>;
  /**
   * Reaches the same process as `reached` through the next best endpoint not in `failed`: one that was proven to lead there, or that is
   * registered under its name with the id that only that process has. A LAN announcement needs the proof.
   * @throws {UnreachableError} no such endpoint, or none that answers
   */
  reachAnother(reached: Reached, failed: readonly string[], signal?: AbortSignal): Promise<Reached>;
  /** Notes that the server may work in the directory of this session of its own; the next survey asks. */
  worksIn(reached: Pick<Reached, 'instance'>, session: { readonly id: string; readonly directory: string }): void;
  /** Asks one server what it is doing in its own directory, where it works, and where its sessions were used lately. */
  surveyServer(reached: Surveyed, signal?: AbortSignal): Promise<ServerSurvey>;
  /** Ends every timer, watcher and request. May be called twice. */
  close(): Promise<void>;
}

/** The message lists the known instances, bounded, and says what to call next. */
export class QueryError extends AdvisedError {
  override readonly name = 'QueryError';
}

/** The message says what was tried, on what, and what to do. */
export class UnreachableError extends AdvisedError {
  override readonly name = 'UnreachableError';
}
