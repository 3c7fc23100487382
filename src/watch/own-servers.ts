import type { Connection } from '../http/exchange.ts';
import type { Dialect, Instance } from '../model/instance.ts';

/** A server of this user on this machine, as its fleet knows it now. */
export interface OwnServer {
  /** See `WatchedServer`. */
  readonly id: string;
  readonly dialect: Dialect;
  /** Its own directory first, then each other in which it works. */
  readonly instances: readonly Instance[];
}

/** Where a watcher finds the servers that it follows, and how it asks them. */
export interface OwnServers {
  /** Those whose port a process of this user holds now. */
  servers(): Promise<readonly OwnServer[]>;
  /** As known now; nothing is asked. Empty where there is none with this id. */
  instancesOf(id: string): readonly Instance[];
  /** Rejects where it is gone, or another process holds its port. */
  connection(id: string, signal: AbortSignal): Promise<Connection>;
  /** Asks the server what it is doing, within one health deadline; what did not answer keeps its age. */
  survey(id: string, signal: AbortSignal): Promise<readonly Instance[]>;
  /** While its events are followed nobody else need look whether it is there. */
  setFollowed(id: string, isFollowed: boolean): void;
  /** It works in the directory of this session of its own, too: the next survey asks. */
  worksIn(id: string, session: { readonly id: string; readonly directory: string }): void;
  /** Calls `listener` when there may be others, until the returned function is called. Not for a process that was killed. */
  onChange(listener: () => void): () => void;
}
