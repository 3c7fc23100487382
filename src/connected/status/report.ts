import type { Note } from '../../model/candidate.ts';
import type { InstanceState } from '../../model/instance.ts';
import type { Finding } from '../cleanup/finding.ts';
import type { PortAnswer } from './registered.ts';

/** What `status --json` prints. Fields may be added; what is here keeps its name and meaning. Text is safe to show. */
export interface StatusReport {
  readonly format: 1;
  /** This machine's registry directory. */
  readonly here: {
    readonly directory: string;
    /** Why it could not be read; then there are no instances. */
    readonly problem?: string | undefined;
    readonly instances: readonly LocalInstance[];
    /** Files that are no registrations, or not trusted. */
    readonly notes: readonly Note[];
  };
  /** Absent where no relay is set. */
  readonly relay?: RelayReport | undefined;
  /** Every `opencode-connected` of this user on this machine, and those that ended without a word. */
  readonly wrappers: readonly Wrapper[];
  /** What `opencode-connected cleanup` would remove. */
  readonly leftovers: readonly Leftover[];
}

export interface LocalInstance {
  readonly name: string;
  readonly id?: string | undefined;
  /** Name of its machine. */
  readonly host?: string | undefined;
  /** On this machine: a tunnel's port where it runs elsewhere. */
  readonly port: number;
  /** Where it listens on its own machine. */
  readonly localPort?: number | undefined;
  /** As registered; what answers tells its own in `answer`. */
  readonly directory?: string | undefined;
  /** In the words of `opencode-mcp list`. */
  readonly state: InstanceState;
  /** Why it is in that state, where that says more. */
  readonly reason?: string | undefined;
  readonly answer: PortAnswer;
  /** Where its password lies, if it has one here. */
  readonly passwordFile?: string | undefined;
  /** For a shell: how to get a terminal on it. Only for one that is healthy, and where that is possible. */
  readonly attach?: string | undefined;
}

export interface RelayReport {
  readonly directory: string;
  /** The relay's own name. */
  readonly host?: string | undefined;
  /** Why it could not be looked at; then there are no registrations. */
  readonly problem?: string | undefined;
  readonly registrations: readonly RelayRegistration[];
  readonly notes: readonly Note[];
}

export interface RelayRegistration {
  readonly name: string;
  readonly id?: string | undefined;
  readonly host?: string | undefined;
  /** The relay's end of the tunnel. */
  readonly port: number;
  readonly localPort?: number | undefined;
  readonly directory?: string | undefined;
  /** `mine`: of the user who logs in on the relay. */
  readonly owner: 'mine' | 'other';
  readonly ownerUid?: number | undefined;
  /** Whether anything listens on `port` of the relay. */
  readonly listens: 'yes' | 'no' | 'unknown';
  /** Whether the process lives that holds the name; `none`: it was written by something that makes no claims. */
  readonly claim: 'alive' | 'dead' | 'elsewhere' | 'unknown' | 'none';
  /** It leads to an instance that a running `opencode-connected` of this machine started. */
  readonly fromHere: boolean;
}

export interface Wrapper {
  readonly id: string;
  readonly name: string;
  readonly pid: number;
  readonly running: boolean;
  readonly opencodePid: number;
  /** Where its tunnel leads, or its opencode listens. */
  readonly port: number;
  readonly directory: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly version: string;
  readonly logFile: string;
  /** With --lan: the name under which its machine is advertised, and where the password lies. */
  readonly lan?: { readonly host: string; readonly passwordFile: string; readonly port: number } | undefined;
  /** It stands for the user's OpenCode 2 service, which goes on when it ends; `opencodePid` is then that of its terminal. */
  readonly service?: { readonly url: string; readonly pid: number } | undefined;
  /** Absent without a relay. `nextAttemptAt` is ISO 8601. */
  readonly tunnel?:
    | {
        readonly state: 'connecting' | 'connected' | 'waiting' | 'closed';
        readonly name?: string | undefined;
        readonly port?: number | undefined;
        readonly reason?: string | undefined;
        readonly nextAttemptAt?: string | undefined;
      }
    | undefined;
}

export type Leftover = Pick<Finding, 'where' | 'what' | 'subject' | 'reason'>;
