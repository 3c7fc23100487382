import type { Connection } from '../http/exchange.ts';
import type { Dialect, Instance } from '../model/instance.ts';

/** A server of this user on this machine. */
export interface OwnServer {
  /** See `WatchedServer`. */
  readonly id: string;
  readonly dialect: Dialect;
  /** Its own directory first, then each other in which it works. */
  readonly instances: readonly Instance[];
}

/** How a watcher finds and asks the servers that it follows. */
export interface OwnServers {
  /** Only servers whose port a process of this user holds now. */
  servers(): Promise<readonly OwnServer[]>;
  /** As known now; sends no request. Empty if no server has this id. */
  instancesOf(id: string): readonly Instance[];
  /** Rejects if the server is gone or another process holds its port. */
  connection(id: string, signal: AbortSignal): Promise<Connection>;
  /** Asks the server what it is doing, within one health deadline. Overviews that got no answer keep their `askedAtMs`. */
  survey(id: string, signal: AbortSignal): Promise<readonly Instance[]>;
  /** A followed server needs no health probes. */
  setFollowed(id: string, isFollowed: boolean): void;
  /** Notes that the server works in the directory of this session of its own; the next survey asks. */
  worksIn(id: string, session: { readonly id: string; readonly directory: string }): void;
  /** Calls `listener` when other servers may be there, until the returned function is called. A killed process may go unnoticed. */
  onChange(listener: () => void): () => void;
}
