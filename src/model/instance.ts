import type { Candidate, Claims, Note } from './candidate.ts';
import type { AtRest } from './at-rest.ts';
import type { WatchedSession } from './watched.ts';

/** A generation of opencode and its API. */
export type Dialect = 'opencode-1' | 'opencode-2' | 'opencode-2-preview';

/** Result of one probe. A failed probe is a value with a reason, never an exception. */
export type ProbeResult =
  | {
      readonly status: 'healthy';
      readonly version: string;
      readonly dialect: Dialect;
      /**
       * From the server's `/path`. Besides the directories of its sessions, the only ones allowed in a request to OpenCode 1.
       * Empty for OpenCode 2, which has session directories only.
       */
      readonly directory: string;
      readonly worktree: string;
      /** Reported by OpenCode 2, but not by its preview. */
      readonly pid?: number;
    }
  /** Alive, but our credential (or the lack of one) was refused. */
  | {
      readonly status: 'locked';
      readonly reason: string;
      /** A password is known but was not sent: the wrong user, or an unknown one, holds the port. */
      readonly isWithheld?: true;
    }
  /** An opencode that is too old, or of an unknown major version. */
  | { readonly status: 'unsupported'; readonly version: string; readonly reason: string }
  | { readonly status: 'unhealthy'; readonly reason: string }
  /** Not probed yet. */
  | { readonly status: 'unknown' }
  /** Not probed, because the candidate is not trusted. */
  | { readonly status: 'untrusted'; readonly reason: string };

/** A candidate and its last probe. */
export interface ProbedEndpoint {
  /** `source` and the candidate's key: unique in the fleet. */
  readonly id: string;
  readonly candidate: Candidate;
  readonly result: ProbeResult;
  /** Time of `result`, ms since the epoch; undefined while unknown. */
  readonly probedAtMs?: number;
  /** When it last answered as healthy or locked. */
  readonly lastSeenMs?: number;
  /** How long the last answer took, for choosing among equal endpoints. */
  readonly latencyMs?: number;
  /** It failed recently: endpoints that did not are preferred, so that a flapping one is not picked up each time it returns. */
  readonly unsteady?: boolean;
  /** Where its password was found; undefined if it gets none. Safe to show. */
  readonly passwordFrom?: string;
  /** Scheduled rounds in a row without an answer; tool calls do not count. */
  readonly misses: number;
  /** The last healthy result, kept while it is not healthy. */
  readonly lastHealthy?: Omit<Extract<ProbeResult, { status: 'healthy' }>, 'status'>;
  /** The last overview of its own directory, kept while it does not answer. */
  readonly overview?: Overview | undefined;
  /** Overviews of its other known directories. */
  readonly elsewhere?: ReadonlyMap<string, Overview> | undefined;
}

/** One opencode process and every endpoint that is proven to lead to it, best first. */
export interface Server {
  /** Stable as long as its candidates are; not shown. */
  readonly key: string;
  readonly claims: Claims;
  readonly endpoints: readonly [ProbedEndpoint, ...ProbedEndpoint[]];
  /** Its own directory, last reported by `/path`; kept while offline, undefined if it never answered. */
  readonly directory?: string;
}

/** A session as listings show it. Text is bounded and free of control characters. */
export interface SessionSummary {
  readonly id: string;
  readonly title: string;
  readonly directory: string;
  readonly updatedMs: number;
  /** Absent while the session is running, and if unknown. */
  readonly rest?: AtRest;
}

/** An overview takes one request for each. */
export const OVERVIEW_PARTS = ['status', 'permissions', 'questions', 'session'] as const;
export type OverviewPart = (typeof OVERVIEW_PARTS)[number];

export type Activity =
  | { readonly kind: 'idle' }
  | { readonly kind: 'busy' }
  | { readonly kind: 'retrying'; readonly attempt: number; readonly message: string }
  /** It answers, but its status is not known yet. */
  | { readonly kind: 'unknown' };

/** A pending permission request or question, which blocks its session. */
export interface Waiting {
  readonly kind: 'permission' | 'question';
  /** Id of the request. */
  readonly id: string;
  /** The session that asked; a sub-agent has its own session. */
  readonly sessionId: string;
  /** The message whose tool asked, if known. */
  readonly messageId?: string;
  /** `bash "rm -rf build"`, `Which color? Red | Blue`: clean and bounded. */
  readonly text: string;
  /** The session is a sub-agent's; absent if unknown. */
  readonly ofSubAgent?: boolean;
}

/** What a server is doing in one directory. */
export interface Overview {
  /** For a directory other than the server's own: a session in it. A server without that session is another process, and the directory is never sent to it. */
  readonly witness?: string;
  readonly activity: Activity;
  /** Running sessions, including sub-agents. */
  readonly running: readonly string[];
  /** The most recently updated root session of that directory. */
  readonly session?: SessionSummary;
  /** Pending requests, including sub-agents', without those left behind by an abort. */
  readonly waiting: readonly Waiting[];
  /** Sessions that are running, waiting or ended recently; present if a watcher follows the server. */
  readonly sessions?: readonly WatchedSession[];
  /** Not used recently: callable by name, but not listed. */
  readonly isOld?: true;
  /** Time of the last survey that got an answer for at least one part. */
  readonly askedAtMs: number;
  /** Parts without a usable answer in that survey; they hold earlier data or none. Absent if all are fresh. */
  readonly stale?: readonly OverviewPart[];
}

export type InstanceState =
  | AtRest['state']
  | 'busy'
  | 'retrying'
  | 'waiting'
  | 'locked'
  | 'offline'
  | 'unsupported'
  | 'untrusted'
  | 'unknown';

/** A server and one directory that it works in: the unit that tools address. */
export interface Instance {
  readonly server: Server;
  /** The server's key, plus the directory if that is not the server's own. */
  readonly key: string;
  /** Unique among all names this program has shown. */
  readonly name: string;
  readonly host: string;
  /** Earlier names, from before two entries proved to be one instance. They still resolve to it. */
  readonly aliases?: readonly string[];
  readonly state: InstanceState;
  /** Undefined if the server never answered. Allowed in a request: it is from the server's `/path` or its sessions. */
  readonly directory?: string;
  /** When any of its endpoints last answered. */
  readonly lastSeenMs?: number;
  /** Why it is locked, offline, unsupported or untrusted; what it is waiting for or retrying. */
  readonly reason?: string;
  /** The last overview, which may be older than the last round. */
  readonly overview?: Overview;
}

/** A listed instance whose server is gone. Its name is never reused. */
export interface GoneInstance {
  readonly name: string;
  readonly host: string;
  readonly directory?: string;
  readonly lastSeenMs?: number;
  readonly overview?: Overview;
  readonly reason: string;
}

/** Result of a source's last scan. */
export interface SourceState {
  readonly name: string;
  readonly status: 'pending' | 'ok' | 'unavailable' | 'failed';
  /** Why it is unavailable or failed. */
  readonly reason?: string;
  /** Number of candidates it contributes now. */
  readonly candidates: number;
  /** See `Scan`; bounded. */
  readonly dropped: readonly Note[];
  /** When its last scan ended, ms since the epoch; undefined while pending. */
  readonly scannedAtMs?: number;
}

/** The fleet at one moment. */
export interface Snapshot {
  /** Sorted by name. */
  readonly instances: readonly Instance[];
  /** Instances of directories that servers no longer work in: not listed, still callable by name. */
  readonly resting: readonly Instance[];
  readonly gone: readonly GoneInstance[];
  readonly sources: readonly SourceState[];
  readonly notes: readonly (Note & { readonly source: string })[];
}
