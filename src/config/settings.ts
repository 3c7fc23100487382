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

/** A credential for every candidate that matches all given patterns (`matchesPattern`). */
export interface CredentialRule {
  readonly name?: string;
  readonly host?: string;
  readonly source?: string;
  readonly credential: CredentialRef;
}

/** One configured instance. */
export interface StaticInstance {
  readonly name: string;
  /** http or https, without a trailing slash, user info, query or fragment. */
  readonly url: string;
  readonly headers: Readonly<Record<string, HeaderValue>>;
  readonly credential?: CredentialRef | undefined;
}

/**
 * Who may answer an agent's requests through this program.
 * - `ask`: the person if the client can ask them; otherwise the model, whose tool call the client itself may have to approve
 * - `human`: only the person; nobody if the client cannot ask them
 * - `model`: the model
 * - `never`: nobody; it must be answered in opencode
 */
export const APPROVERS = ['ask', 'human', 'model', 'never'] as const;
export type Approver = (typeof APPROVERS)[number];

/** For each piece of a request, the first rule that matches all its given patterns applies. */
export interface ApprovalRule {
  /** Matches any current or earlier name of the instance. */
  readonly instance?: string;
  /** Matches the kind of permission: `bash`, `edit`, …; `question` for questions. */
  readonly permission?: string;
  /** Matches a piece of the request: a command, a path, …. */
  readonly pattern?: string;
  readonly approve: Approver;
}

export interface TailnetSettings {
  /** tailscaled's LocalAPI; default: the path of this system. */
  readonly socketPath?: string | undefined;
  /** Port of the node service on every machine. */
  readonly nodePort: number;
  /** Ports to try for an opencode on a machine without a node service. */
  readonly ports: readonly number[];
  /** Tags of nodes to treat like your own, with the `tag:` prefix. */
  readonly tags: readonly string[];
  /** Logins of people whose nodes to treat like your own. */
  readonly users: readonly string[];
}

/** All settings, checked. */
export interface Settings {
  /** `explicit` is false for the default. */
  readonly registryDir: { readonly path: string; readonly explicit: boolean };
  readonly sources: 'all' | readonly SourceName[];
  readonly discoveryIntervalMs: number;
  readonly healthCheckTimeoutMs: number;
  /** Concurrent probes of the process. */
  readonly healthConcurrency: number;
  /** The longest a `send` may block, whatever the client allows. */
  readonly sendTimeoutMs: number;
  readonly credentialRules: readonly CredentialRule[];
  /** `OPENCODE_SERVER_PASSWORD`: for loopback, relay and tailnet endpoints without a more specific credential. */
  readonly defaultCredential?: CredentialRef | undefined;
  readonly instances: readonly StaticInstance[];
  readonly toolsets: readonly Toolset[];
  /** Offers no tool that changes anything on an instance. */
  readonly readOnly: boolean;
  /** Applies if no rule matches. */
  readonly approve: Approver;
  readonly approvalRules: readonly ApprovalRule[];
  readonly logLevel: LogLevel;
  /** Absolute: logs and state of these programs. */
  readonly stateDir: string;
  /** Absolute: state of this user's OpenCode. */
  readonly opencodeStateDir: string;
  readonly tailnet: TailnetSettings;
  /** Network interfaces for mDNS, by name; an empty list switches it off. */
  readonly mdnsInterfaces: 'all' | readonly string[];
  readonly connected: ConnectedSettings;
  /** Unset: no notifications. */
  readonly notify?: NotifySettings | undefined;
  /** Absolute: state of the node service. `stateDir`, or the folder that systemd assigns. */
  readonly serviceDir: string;
}

/** Used by `opencode-connected` only. */
export interface ConnectedSettings {
  /** As written; split into words, never evaluated by a shell. Unset: no relay. */
  readonly relaySshCommand?: string | undefined;
  /** The registry directory on the relay. */
  readonly relayRegistryDir: Settings['registryDir'];
  /** As written; unchecked. */
  readonly instanceName?: string | undefined;
  /** A bare name is looked up on PATH; everything else is absolute. */
  readonly opencodeBin: string;
  /** Port of `--lan`; default: any free port. */
  readonly lanPort?: number | undefined;
}

/** Each line names the setting, the value and what was expected. */
export class SettingsError extends ReportedError {
  override readonly name = 'SettingsError';
  override readonly exitCode = 2;
}
