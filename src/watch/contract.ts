import type { Instance } from '../model/instance.ts';
import type { WatchedSession } from '../model/watched.ts';

/** One server of this user, as its watcher last saw it. */
export interface WatchedServer {
  /** Its id in the node service's list; stable while the registration lasts. */
  readonly id: string;
  /** One for its own directory, and one for each other in which it works. */
  readonly instances: readonly Instance[];
  /** Sessions that run or wait, and those that ended within the last hour, newest first; bounded. */
  readonly sessions: readonly WatchedSession[];
  /** When the last event of each running session arrived, ms since the epoch, by session id. */
  readonly lastEvents: ReadonlyMap<string, number>;
  /** When its state was last confirmed as a whole, by the monotonic clock; undefined while its event stream is down. */
  readonly checkedMs: number | undefined;
}

/** Follows this user's servers on this machine. */
export interface Watcher {
  servers(): readonly WatchedServer[];
  /** See `WatchedServer`; undefined if no server with this id is followed. */
  checkedMs(id: string): number | undefined;
  /** Calls `listener` after each change, until the returned function is called. */
  onChange(listener: () => void): () => void;
}
