import type { Note } from '../../model/candidate.ts';
import type { InstanceState } from '../../model/instance.ts';
import type { Finding } from '../cleanup/finding.ts';
import type { PortAnswer } from './registered.ts';

/** The output of `status --json`. Fields may be added; these keep their names and meanings. Text is safe to show. */
export interface StatusReport {
  readonly format: 1;
  readonly here: {
    readonly directory: string;
    /** Why it could not be read. Then there are no instances. */
    readonly problem?: string | undefined;
    readonly instances: readonly LocalInstance[];
    /** Files that are not registrations, or not trusted. */
    readonly notes: readonly Note[];
  };
  readonly relay?: RelayReport | undefined;
  /** Every `opencode-connected` of this user on this machine that runs, or ended without tidying up. */
  readonly wrappers: readonly Wrapper[];
  /** What `cleanup` would remove. */
  readonly leftovers: readonly Leftover[];
}

export interface LocalInstance {
  readonly name: string;
  readonly id?: string | undefined;
  readonly host?: string | undefined;
  /** On this machine; a tunnel's port if the instance runs elsewhere. */
  readonly port: number;
  /** The port on its own machine. */
  readonly localPort?: number | undefined;
  /** The registered directory; `answer` has that of the instance which answers. */
  readonly directory?: string | undefined;
  /** The same words as in `opencode-mcp list`. */
  readonly state: InstanceState;
  /** Why it is in that state, if known. */
  readonly reason?: string | undefined;
  readonly answer: PortAnswer;
  /** The file of its password, if it has one here. */
  readonly passwordFile?: string | undefined;
  /** The shell command that opens a terminal on it. Only for a healthy one, and if that is possible. */
  readonly attach?: string | undefined;
}

export interface RelayReport {
  readonly directory: string;
  /** The relay's own name. */
  readonly host?: string | undefined;
  /** Why it could not be read. Then there are no registrations. */
  readonly problem?: string | undefined;
  readonly registrations: readonly RelayRegistration[];
  readonly notes: readonly Note[];
}

export interface RelayRegistration {
  readonly name: string;
  readonly id?: string | undefined;
  readonly host?: string | undefined;
  /** The tunnel's port on the relay. */
  readonly port: number;
  readonly localPort?: number | undefined;
  readonly directory?: string | undefined;
  /** `mine`: of the user as whom ssh logs in on the relay. */
  readonly owner: 'mine' | 'other';
  readonly ownerUid?: number | undefined;
  /** Whether anything listens on the relay's `port`. */
  readonly listens: 'yes' | 'no' | 'unknown';
  /** Whether the process that holds the name runs. `none`: written by a program that makes no claims. */
  readonly claim: 'alive' | 'dead' | 'elsewhere' | 'unknown' | 'none';
  /** Its instance was started by an `opencode-connected` that runs on this machine. */
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
  /** With --lan: the advertised name of its machine, and the file of the password. */
  readonly lan?: { readonly host: string; readonly passwordFile: string; readonly port: number } | undefined;
  /** The user's OpenCode 2 service that it registers, and which outlives it. `opencodePid` is then its terminal's. */
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
