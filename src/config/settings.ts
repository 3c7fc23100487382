import type { HeaderValue } from './file/instance-headers.ts';
import type { NotifySettings } from './notify.ts';
import type { CredentialRef } from './file/secret-ref.ts';
import type { LogLevel } from '../base/log.ts';
import { ReportedError } from '../base/program.ts';

/** The discovery sources, in the order of their results; used in `TRANSPORT` and credential rules. */
export const SOURCE_NAMES = ['local-relay', 'service', 'tailscale', 'mdns', 'static'] as const;
export type SourceName = (typeof SOURCE_NAMES)[number];

/** Groups of tools that can be switched on or off; see `src/mcp/tools`. */
export const TOOLSETS = ['core', 'instances', 'sessions', 'inspect'] as const;
export type Toolset = (typeof TOOLSETS)[number];

/** A credential for every candidate that fits all the patterns given. `*` matches any run of characters; case does not matter. */
export interface CredentialRule {
  readonly name?: string;
  readonly host?: string;
  readonly source?: string;
  readonly credential: CredentialRef;
}

/** One instance that a person listed by URL. */
export interface StaticInstance {
  readonly name: string;
  /** http or https, without a trailing slash, user info, query or fragment. */
  readonly url: string;
  readonly headers: Readonly<Record<string, HeaderValue>>;
  readonly credential?: CredentialRef | undefined;
}

/**
 * Who may settle what an agent asks for.
 * - `ask`: the person, where the client can ask them; elsewhere the model, since the client's own approval of the tool stands before it
 * - `human`: the person only; where the client cannot ask them, nobody here
 * - `model`: the model, without asking
 * - `never`: nobody here; it is settled in that opencode
 */
export const APPROVERS = ['ask', 'human', 'model', 'never'] as const;
export type Approver = (typeof APPROVERS)[number];

/** Who settles what fits all the patterns given. For each piece of a request the first rule that fits counts. */
export interface ApprovalRule {
  /** Of any name that the instance has or had. */
  readonly instance?: string;
  /** Of the kind of permission: `bash`, `edit`, …; `question` for questions. */
  readonly permission?: string;
  /** Of a piece of the request: a command, a path, …. */
  readonly pattern?: string;
  readonly approve: Approver;
}

export interface TailnetSettings {
  /** Of tailscaled's LocalAPI; unset: where it is on this system. */
  readonly socketPath?: string | undefined;
  /** Where node services listen, on this and on other machines. */
  readonly nodePort: number;
  /** Ports at which a machine without a node service is asked for a bare opencode. */
  readonly ports: readonly number[];
  /** Tags of nodes that count as one's own, with the `tag:` prefix. */
  readonly tags: readonly string[];
  /** Logins of people whose nodes count as one's own. */
  readonly users: readonly string[];
}

/** Everything a person can set, checked. Precedence: flag, environment, config file, default. */
export interface Settings {
  /** `explicit` is false where nobody set it and the default stands. */
  readonly registryDir: { readonly path: string; readonly explicit: boolean };
  readonly sources: 'all' | readonly SourceName[];
  readonly discoveryIntervalMs: number;
  readonly healthCheckTimeoutMs: number;
  /** Probes in flight at once, whole process. */
  readonly healthConcurrency: number;
  /** The longest a `send` may block, whatever the client allows. */
  readonly sendTimeoutMs: number;
  readonly credentialRules: readonly CredentialRule[];
  /** `OPENCODE_SERVER_PASSWORD`: for loopback, relay and tailnet endpoints that nothing more specific fits. */
  readonly defaultCredential?: CredentialRef | undefined;
  readonly instances: readonly StaticInstance[];
  readonly toolsets: readonly Toolset[];
  /** No tool that changes anything on an instance. */
  readonly readOnly: boolean;
  /** Where no rule fits. */
  readonly approve: Approver;
  readonly approvalRules: readonly ApprovalRule[];
  readonly logLevel: LogLevel;
  /** Absolute: logs, and what the programs write down for themselves. */
  readonly stateDir: string;
  /** Absolute: where this user's own OpenCode keeps its state. */
  readonly opencodeStateDir: string;
  readonly tailnet: TailnetSettings;
  /** Network interfaces on which to look, and to advertise, on the LAN: their names, or `all`; none switches it off. */
  readonly mdnsInterfaces: 'all' | readonly string[];
  readonly connected: ConnectedSettings;
  /** Unset: nobody is notified. */
  readonly notify?: NotifySettings | undefined;
  /** Absolute: what a service keeps for itself. `stateDir`, but for a unit that may not write there. */
  readonly serviceDir: string;
}

/** What only `opencode-connected` uses. */
export interface ConnectedSettings {
  /** As written; to be split into words, never evaluated. Without one there is no relay. */
  readonly relaySshCommand?: string | undefined;
  /** On the relay; as `registryDir`. */
  readonly relayRegistryDir: Settings['registryDir'];
  /** As written; unchecked. */
  readonly instanceName?: string | undefined;
  /** A bare name is looked up on PATH; everything else is absolute. */
  readonly opencodeBin: string;
  /** Where `--lan` listens; any free port where unset. */
  readonly lanPort?: number | undefined;
}

/** The message names the setting, the value and what was expected; nothing starts. */
export class SettingsError extends ReportedError {
  override readonly name = 'SettingsError';
  override readonly exitCode = 2;
}
