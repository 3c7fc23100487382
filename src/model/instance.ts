import type { Candidate, Claims, Note } from './candidate.ts';
import type { AtRest } from './at-rest.ts';
import type { WatchedSession } from './watched.ts';

/** A generation of opencode, and how it is spoken to. */
export type Dialect = 'opencode-1' | 'opencode-2' | 'opencode-2-preview';

/** What one look at an endpoint found. A failed probe is a value with a reason, never an exception. */
export type ProbeResult =
  | {
      readonly status: 'healthy';
      readonly version: string;
      readonly dialect: Dialect;
      /**
       * The server's own directories, as its `/path` tells them: of OpenCode 1 the only ones that may go into a request, beside those
       * of its sessions. Empty of OpenCode 2, which works in those of its sessions alone.
       */
      readonly directory: string;
      readonly worktree: string;
      /** The process, as an OpenCode 2 says it itself; the preview does not. */
      readonly pid?: number;
    }
  /** Alive, but our credential (or the lack of one) was refused. */
  | {
      readonly status: 'locked';
      readonly reason: string;
      /** A password is known and was not sent: the wrong user holds the port, or nobody knows who does. */
      readonly isWithheld?: true;
    }
  /** An opencode that this program cannot drive: too old, or of a major version it does not know. */
  | { readonly status: 'unsupported'; readonly version: string; readonly reason: string }
  | { readonly status: 'unhealthy'; readonly reason: string }
  /** Not asked yet. */
  | { readonly status: 'unknown' }
  /** Not asked, because its source does not vouch for it. */
  | { readonly status: 'untrusted'; readonly reason: string };

/** A candidate together with what answered there. */
export interface ProbedEndpoint {
  /** `source` and the candidate's key: unique in the directory. */
  readonly id: string;
  readonly candidate: Candidate;
  readonly result: ProbeResult;
  /** When `result` was obtained, ms since the epoch; undefined while unknown. */
  readonly probedAtMs?: number;
  /** When it last answered as healthy or locked. */
  readonly lastSeenMs?: number;
  /** Time of the last answer, for choosing among equals. */
  readonly latencyMs?: number;
  /** It failed a short while ago: a way that did not is used before it, so that one that comes and goes is not taken up each time. */
  readonly unsteady?: boolean;
  /** Where the password was found that goes with requests to it; undefined where none does. Safe to show. */
  readonly passwordFrom?: string;
  /** Scheduled rounds in a row in which it did not answer; tool calls do not count. */
  readonly misses: number;
  /** Its answers when it was last healthy, kept while it is not. */
  readonly lastHealthy?: Omit<Extract<ProbeResult, { status: 'healthy' }>, 'status'>;
  /** What it was doing in its own directory when it was last asked, kept while it does not answer. */
  readonly overview?: Overview | undefined;
  /** The other directories that it was seen to work in, and what it was doing there. */
  readonly elsewhere?: ReadonlyMap<string, Overview> | undefined;
}

/** One opencode process, with every endpoint that is proven to lead to it, best first. */
export interface Server {
  /** Stable while the set of sightings is; not shown. */
  readonly key: string;
  readonly claims: Claims;
  readonly endpoints: readonly [ProbedEndpoint, ...ProbedEndpoint[]];
  /** Its own directory as its `/path` last gave it; kept while it is offline, undefined where it never answered. */
  readonly directory?: string;
}

/** A session as listings show it. Text is bounded and free of control characters. */
export interface SessionSummary {
  readonly id: string;
  readonly title: string;
  readonly directory: string;
  readonly updatedMs: number;
  /** How it stands where it does not run; absent where it runs or that is not known. */
  readonly rest?: AtRest;
}

/** The requests that an overview consists of. */
export const OVERVIEW_PARTS = ['status', 'permissions', 'questions', 'session'] as const;
export type OverviewPart = (typeof OVERVIEW_PARTS)[number];

export type Activity =
  | { readonly kind: 'idle' }
  | { readonly kind: 'busy' }
  | { readonly kind: 'retrying'; readonly attempt: number; readonly message: string }
  /** It answers, but its status is not known yet. */
  | { readonly kind: 'unknown' };

/** One request that a session stops for until somebody answers. */
export interface Waiting {
  readonly kind: 'permission' | 'question';
  /** Of the request. */
  readonly id: string;
  /** The session that asked: a sub-agent's has its own. */
  readonly sessionId: string;
  /** The message whose tool asked, where that is known. */
  readonly messageId?: string;
  /** `bash "rm -rf build"`, `Which color? Red | Blue`: clean and bounded. */
  readonly text: string;
  /** The session works for another one; absent where that is not known. */
  readonly ofSubAgent?: boolean;
}

/** What a server is doing in one directory, as asked within one survey. */
export interface Overview {
  /** Of another directory than the server's own: a session there. A server that does not have it is another process, to which the directory is not named. */
  readonly witness?: string;
  readonly activity: Activity;
  /** Sessions that run, sub-agents' included. */
  readonly running: readonly string[];
  /** The most recently updated root session of that directory. */
  readonly session?: SessionSummary;
  /** What waits for an answer, sub-agents' requests included; not what an abort left behind. */
  readonly waiting: readonly Waiting[];
  /** Its sessions that run, wait or ended lately; present where a watcher follows the server. */
  readonly sessions?: readonly WatchedSession[];
  /** Not used lately: its name can be called, and it is not listed. */
  readonly isOld?: true;
  /** When it was last asked and answered at least one part. */
  readonly askedAtMs: number;
  /** Parts that got no usable answer then; they show what was known before, or nothing. Absent when all is fresh. */
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

/** A server and one directory that it works in: what tools name. */
export interface Instance {
  readonly server: Server;
  /** The server's, with the directory where that is not the server's own. */
  readonly key: string;
  /** Unique among all names ever shown by this server. */
  readonly name: string;
  readonly host: string;
  /** Names under which it was also shown, before two entries proved to be one instance. They lead to it still. */
  readonly aliases?: readonly string[];
  readonly state: InstanceState;
  /** Undefined where the server never answered. Safe to name in a request: the server's `/path` or its sessions gave it. */
  readonly directory?: string;
  /** When any of its endpoints last answered. */
  readonly lastSeenMs?: number;
  /** Why it is locked, offline, unsupported or untrusted; what it waits for or retries. */
  readonly reason?: string;
  /** The last overview; its age shows whether this round's survey was answered. */
  readonly overview?: Overview;
}

/** An instance that was shown once and whose server is gone. Its name is never given to another. */
export interface GoneInstance {
  readonly name: string;
  readonly host: string;
  readonly directory?: string;
  readonly lastSeenMs?: number;
  readonly overview?: Overview;
  readonly reason: string;
}

/** How a source did at its last scan. */
export interface SourceState {
  readonly name: string;
  readonly status: 'pending' | 'ok' | 'unavailable' | 'failed';
  readonly reason?: string;
  /** Candidates it contributes now. */
  readonly candidates: number;
  /** What it saw and left out in the normal course of things, and why; bounded. */
  readonly dropped: readonly Note[];
  /** When its last scan ended, ms since the epoch. */
  readonly scannedAtMs?: number;
}

/** The fleet at one moment. */
export interface Snapshot {
  /** Sorted by name. */
  readonly instances: readonly Instance[];
  /** Directories that were listed while a server worked there; it does no more, but their names stay callable. */
  readonly resting: readonly Instance[];
  readonly gone: readonly GoneInstance[];
  readonly sources: readonly SourceState[];
  readonly notes: readonly (Note & { readonly source: string })[];
}
