import type { LogLevel } from '../base/log.ts';
import {
  absolutePath,
  anyText,
  command,
  interfaces,
  oneOf,
  path,
  port,
  ports,
  someOf,
  username,
  wholeNumber,
  words,
  yesOrNo,
  type Kind,
} from './option-kinds.ts';
import { APPROVERS, SOURCE_NAMES, TOOLSETS } from './settings.ts';

const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const satisfies readonly LogLevel[];

// Node's limit; a timer set for longer fires at once.
const LONGEST_TIMER_MS = 2_147_483_647;
const DAY_MS = 86_400_000;

export type Program = 'opencode-mcp' | 'opencode-connected';

export interface Names {
  /** Long flag, without the dashes. */
  readonly flag?: string;
  /** Environment variable. */
  readonly env?: string;
  /** Key in the config file. */
  readonly key?: string;
  /** The only program that has this flag and shows this row in its help. Both programs read the same config file. */
  readonly only?: Program;
}

/** One row of the help text. */
export interface Row extends Names {
  readonly summary: string;
  /** Stands for the value in the help text: `MS` in `--flag MS`. */
  readonly placeholder?: string;
  /** Written as `--flag` or `--no-flag`, without a value. */
  readonly isSwitch?: boolean;
  readonly defaultText?: string;
}

export interface Option<T> extends Row {
  readonly kind: Kind<T>;
  readonly fallback: T;
}

/** The types of the settings' values. */
type Plain = string | number | boolean | readonly (string | number)[];

function option<T extends Plain, Fallback extends T | undefined>(
  names: Names,
  summary: string,
  kind: Kind<T>,
  fallback: Fallback,
): Option<T | Fallback> {
  const { placeholder, isSwitch = false } = kind;
  return { ...names, placeholder, summary, kind, fallback, defaultText: shown(fallback), isSwitch };
}

/** A default in the help text. */
function shown(value: Plain | undefined): string {
  if (value === undefined) return 'none';
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return typeof value === 'object' ? value.join(',') || 'none' : String(value);
}

const MCP = { only: 'opencode-mcp' } as const;
const CONNECTED = { only: 'opencode-connected' } as const;

/** The settings with one plain value: their names, bounds, defaults and help. */
export const OPTIONS = {
  registryDir: option(
    { flag: 'registry-dir', env: 'RELAY_REGISTRY_DIR', key: 'registryDir' },
    'folder in which opencode-connected registers instances',
    path(),
    '/tmp/opencode-relay',
  ),
  discoveryIntervalMs: option(
    { flag: 'interval-ms', env: 'DISCOVERY_INTERVAL_MS', key: 'discoveryIntervalMs', ...MCP },
    'time between two discovery rounds; most changes are noticed at once',
    wholeNumber('milliseconds', 1000, LONGEST_TIMER_MS),
    30_000,
  ),
  healthCheckTimeoutMs: option(
    { flag: 'health-timeout-ms', env: 'HEALTH_CHECK_TIMEOUT_MS', key: 'healthCheckTimeoutMs' },
    'timeout of one health check',
    wholeNumber('milliseconds', 100, 60_000),
    3000,
  ),
  healthConcurrency: option(
    { flag: 'health-concurrency', env: 'OPENCODE_MCP_HEALTH_CONCURRENCY', key: 'healthConcurrency' },
    'health checks in flight at once',
    wholeNumber('', 1, 256),
    16,
  ),
  sendTimeoutMs: option(
    { flag: 'send-timeout-ms', env: 'SEND_TIMEOUT_MS', key: 'sendTimeoutMs', ...MCP },
    'longest time a send may block, whatever the client allows',
    wholeNumber('milliseconds', 1000, DAY_MS),
    300_000,
  ),
  transport: option(
    { flag: 'transport', env: 'TRANSPORT', key: 'transport', ...MCP },
    `discovery sources to use: all, or a comma list of ${SOURCE_NAMES.join(', ')}`,
    someOf(SOURCE_NAMES),
    'all',
  ),
  toolsets: option(
    { flag: 'toolsets', env: 'OPENCODE_MCP_TOOLSETS', key: 'toolsets', ...MCP },
    `tools to offer: all, or a comma list of ${TOOLSETS.join(', ')}`,
    someOf(TOOLSETS),
    'all',
  ),
  readOnly: option(
    { flag: 'read-only', env: 'OPENCODE_MCP_READ_ONLY', key: 'readOnly', ...MCP },
    'offer only tools that change nothing',
    yesOrNo(),
    false,
  ),
  approve: option(
    { flag: 'approve', env: 'OPENCODE_MCP_APPROVE', key: 'approve', ...MCP },
    'who may answer permissions and questions: ask (you if the client can ask you, otherwise the model), human, model, never',
    oneOf('WHO', APPROVERS),
    'ask',
  ),
  logLevel: option(
    { flag: 'log-level', env: 'OPENCODE_MCP_LOG_LEVEL', key: 'logLevel', ...MCP },
    `log level on stderr: ${LOG_LEVELS.join(', ')}`,
    oneOf('LEVEL', LOG_LEVELS),
    'info',
  ),
  username: option(
    { env: 'OPENCODE_SERVER_USERNAME', key: 'username' },
    'user name for the password',
    username(),
    'opencode',
  ),
  relaySshCommand: option(
    { env: 'RELAY_SSH_CMD', key: 'relaySshCommand', ...CONNECTED },
    'ssh command for the relay, such as ssh user@relay; none: no relay',
    command('COMMAND', 'a command on one line'),
    undefined,
  ),
  relayRegistryDir: option(
    { env: 'RELAY_REMOTE_REGISTRY_DIR', key: 'relayRegistryDir', ...CONNECTED },
    'registry directory on the relay, if its path differs from the one here',
    absolutePath(),
    undefined,
  ),
  instanceName: option(
    { env: 'INSTANCE_NAME', ...CONNECTED },
    'name of the instance; default <hostname>-<directory>, for an OpenCode 2 service <hostname>:service',
    anyText(),
    undefined,
  ),
  opencodeBin: option(
    { env: 'OPENCODE_BIN', key: 'opencodeBin', ...CONNECTED },
    'opencode to start: a path, or a name on PATH',
    command('PROGRAM', 'a path or the name of a program'),
    'opencode',
  ),
  lanPort: option(
    { flag: 'lan-port', env: 'OPENCODE_LAN_PORT', key: 'lanPort', ...CONNECTED },
    'port of --lan, for a firewall rule; default: a free one',
    port(),
    undefined,
  ),
  tailscaleSocket: {
    ...option(
      { flag: 'tailscale-socket', env: 'TAILSCALE_SOCKET', key: 'tailscaleSocket', ...MCP },
      "socket of tailscaled's LocalAPI",
      path(),
      '',
    ),
    defaultText: 'the default path of this system',
  },
  nodePort: option(
    { flag: 'node-port', env: 'OPENCODE_NODE_PORT', key: 'nodePort', ...MCP },
    'port of the node service, on this machine and on other machines of the tailnet',
    port(),
    4095,
  ),
  tailnetPorts: option(
    { flag: 'tailnet-ports', env: 'OPENCODE_TAILNET_PORTS', key: 'tailnetPorts', ...MCP },
    'ports to try for an opencode on tailnet machines without a node service: none, or a comma list',
    ports(),
    [4096],
  ),
  tailnetTags: option(
    { flag: 'tailnet-tags', env: 'OPENCODE_TAILNET_TAGS', key: 'tailnetTags', ...MCP },
    'tags whose machines are discovered and admitted like your own: tag:server,tag:ci',
    words('a comma list of tags such as tag:ci-2 (letters, digits, dashes)', /^tag:[A-Za-z][A-Za-z0-9-]*$/),
    [],
  ),
  tailnetUsers: option(
    { flag: 'tailnet-users', env: 'OPENCODE_TAILNET_USERS', key: 'tailnetUsers', ...MCP },
    'logins of other people whose machines are discovered and admitted like your own: ada@example.com',
    words('a comma list of logins without spaces', /^[^\s,]{1,254}$/),
    [],
  ),
  mdnsInterfaces: option(
    { flag: 'mdns-interfaces', env: 'OPENCODE_MDNS_INTERFACES', key: 'mdnsInterfaces' },
    'network interfaces to use for mDNS: all, none, or a comma list of names',
    interfaces(),
    'all',
  ),
} as const;

/** Without a flag, because every user of a machine can read the arguments of its processes. */
export const PASSWORD = {
  env: 'OPENCODE_SERVER_PASSWORD',
  key: 'password',
  placeholder: 'SECRET',
  summary: 'password for instances on loopback, a relay or the tailnet that have no other',
} as const satisfies Row;

export const CONFIG_FLAG = {
  flag: 'config',
  placeholder: 'PATH',
  summary: 'config file, JSON',
  defaultText: '$XDG_CONFIG_HOME/opencode-mcp/config.json, else ~/.config/opencode-mcp/config.json',
} as const satisfies Row;

export const CREDENTIALS = {
  key: 'credentials',
  summary: 'passwords by instance: [{name?, host?, source?, username?, password: SECRET}]; * is a wildcard',
} as const satisfies Row;

export const INSTANCES = {
  ...MCP,
  key: 'instances',
  summary: 'instances by URL: [{name, url, headers?: {NAME: SECRET}, username?, password?: SECRET}]',
} as const satisfies Row;

export const APPROVALS = {
  ...MCP,
  key: 'approvals',
  summary:
    'exceptions to approve: [{instance?, permission?, pattern?, approve}]; * is a wildcard; see docs/permissions.md',
} as const satisfies Row;

export const NOTIFY = {
  ...MCP,
  key: 'notify',
  summary:
    'where to notify you, and of what: {channels: [{type: ntfy, webhook, command or desktop, …}], minTurnSeconds?, repeatAfterMinutes?, stalledAfterMinutes?}; see docs/notifications.md',
} as const satisfies Row;

/** Every setting, in the order of the help text. */
export const ROWS: readonly Row[] = [
  CONFIG_FLAG,
  ...Object.values(OPTIONS),
  PASSWORD,
  CREDENTIALS,
  INSTANCES,
  APPROVALS,
  NOTIFY,
];

/** The rows in the help of `program`. */
export function rowsOf(program: Program): readonly Row[] {
  return ROWS.filter(({ only = program }) => only === program);
}
