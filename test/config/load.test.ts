import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OPTIONS, type Row, ROWS } from '../../src/config/options.ts';
import { CONFIG_PATH, load, problemsOf, type Case } from './load-case.ts';

describe('defaults', () => {
  it('apply if no option is set', () => {
    expect(load()).toEqual({
      settings: {
        registryDir: { path: '/tmp/opencode-relay', explicit: false },
        sources: 'all',
        discoveryIntervalMs: 30_000,
        healthCheckTimeoutMs: 3000,
        healthConcurrency: 16,
        sendTimeoutMs: 300_000,
        credentialRules: [],
        instances: [],
        toolsets: ['core', 'instances', 'sessions', 'inspect'],
        readOnly: false,
        approve: 'ask',
        approvalRules: [],
        logLevel: 'info',
        mdnsInterfaces: 'all',
        connected: {
          relayRegistryDir: { path: '/tmp/opencode-relay', explicit: false },
          opencodeBin: 'opencode',
        },
        stateDir: '/home/ada/.local/state/opencode-mcp',
        serviceDir: '/home/ada/.local/state/opencode-mcp',
        opencodeStateDir: '/home/ada/.local/state/opencode',
        tailnet: { nodePort: 4095, ports: [4096], tags: [], users: [] },
      },
      warnings: [],
      flags: new Map(),
      positionals: [],
    });
  });

  it('apply if variables and the config file are empty', () => {
    const env = Object.fromEntries(ROWS.flatMap((row) => (row.env === undefined ? [] : [[row.env, '']])));
    expect(load({ env, config: {} })).toEqual(load());
  });
});

describe('precedence', () => {
  type WrittenAndValue = readonly [written: unknown, value: unknown];
  /** For each option: its property in the settings, then the text and the resulting value as a flag, in the environment and in the config file. */
  const cases: Readonly<Record<string, readonly [property: string, ...WrittenAndValue[]]>> = {
    registryDir: ['registryDir.path', ['/a', '/a'], ['/b', '/b'], ['/c', '/c']],
    discoveryIntervalMs: ['discoveryIntervalMs', ['1000', 1000], ['2000', 2000], [2_147_483_647, 2_147_483_647]],
    healthCheckTimeoutMs: ['healthCheckTimeoutMs', ['100', 100], ['0200', 200], [60_000, 60_000]],
    healthConcurrency: ['healthConcurrency', ['1', 1], ['2', 2], [256, 256]],
    sendTimeoutMs: ['sendTimeoutMs', ['1000', 1000], ['2000', 2000], [86_400_000, 86_400_000]],
    transport: ['sources', ['mdns', ['mdns']], [' static , mdns,', ['mdns', 'static']], [['static'], ['static']]],
    toolsets: ['toolsets', ['core', ['core']], ['sessions,Core,core', ['core', 'sessions']], [['core'], ['core']]],
    readOnly: ['readOnly', ['false', false], ['Yes', true], [true, true]],
    approve: ['approve', ['human', 'human'], ['Never', 'never'], ['model', 'model']],
    logLevel: ['logLevel', ['debug', 'debug'], ['WARN', 'warn'], ['error', 'error']],
    lanPort: ['connected.lanPort', ['1', 1], ['2', 2], [65_535, 65_535]],
    tailscaleSocket: [
      'tailnet.socketPath',
      ['/a.sock', '/a.sock'],
      ['~/b.sock', '/home/ada/b.sock'],
      ['c.sock', '/home/ada/.config/opencode-mcp/c.sock'],
    ],
    nodePort: ['tailnet.nodePort', ['1', 1], ['2', 2], [65_535, 65_535]],
    tailnetPorts: ['tailnet.ports', ['none', []], ['4096, 4097,4096', [4096, 4097]], [[5000], [5000]]],
    tailnetTags: [
      'tailnet.tags',
      ['tag:a', ['tag:a']],
      ['tag:b, tag:b,tag:c-1', ['tag:b', 'tag:c-1']],
      [['tag:d'], ['tag:d']],
    ],
    tailnetUsers: [
      'tailnet.users',
      ['a@b.example', ['a@b.example']],
      ['b@github, c@', ['b@github', 'c@']],
      ['d', ['d']],
    ],
    mdnsInterfaces: ['mdnsInterfaces', ['none', []], ['eth0, wlan0,eth0', ['eth0', 'wlan0']], ['All', 'all']],
  };
  const optionsWithFlag = Object.entries<Row>(OPTIONS).flatMap(
    ([name, { flag, env = '', key = '', only = 'opencode-mcp' }]) =>
      flag === undefined ? [] : [{ name, flag, env, key, program: only }],
  );
  it.each(optionsWithFlag)('$name: flag, environment, config file', ({ name, flag, env, key, program }) => {
    const [property = '', inFlag, inEnv, inConfig] = cases[name] ?? [];
    const argv = [`--${flag}=${String(inFlag?.[0])}`];
    const config = { [key]: inConfig?.[0] };
    const variables = { [env]: String(inEnv?.[0]) };
    expect(load({ argv, env: variables, config, program }).settings).toHaveProperty(property, inFlag?.[1]);
    expect(load({ env: variables, config }).settings).toHaveProperty(property, inEnv?.[1]);
    expect(load({ env: { [env]: '' }, config }).settings).toHaveProperty(property, inConfig?.[1]);
  });

  it.each([
    { name: 'all beside other sources', env: { TRANSPORT: 'mdns,all' }, expected: 'all' },
    { name: 'only spaces', env: { TRANSPORT: '  ' }, expected: 'all' },
    { name: 'a string in the config file', config: { transport: 'static,mdns' }, expected: ['mdns', 'static'] },
    { name: 'an empty string in the config file', config: { transport: '' }, expected: 'all' },
    { name: 'an empty flag', argv: ['--transport='], env: { TRANSPORT: 'mdns' }, expected: 'all' },
  ])('transport: $name', ({ expected, ...given }) => {
    expect(load(given).settings.sources).toEqual(expected);
  });

  it.each([
    ...['1', 'true', 'yes', 'on', 'TRUE'].map((word) => [word, true] as const),
    ...['0', 'false', 'no', 'off', 'Off'].map((word) => [word, false] as const),
  ])('read-only %s, in the variable and after the flag', (word, expected) => {
    const config = { readOnly: !expected };
    expect(load({ env: { OPENCODE_MCP_READ_ONLY: word }, config }).settings.readOnly).toBe(expected);
    expect(load({ argv: [`--read-only=${word}`], config }).settings.readOnly).toBe(expected);
  });
});

describe('the registry directory', () => {
  it.each<[name: string, given: Case, path: string]>([
    ['absolute', { argv: ['--registry-dir', '/srv/./relay/'] }, '/srv/relay'],
    ['the default path, set explicitly', { env: { RELAY_REGISTRY_DIR: '/tmp/opencode-relay' } }, '/tmp/opencode-relay'],
    ['a flag relative to the working directory', { argv: ['--registry-dir', 'relay'] }, '/work-dir/relay'],
    ['a variable relative to the working directory', { env: { RELAY_REGISTRY_DIR: '../relay' } }, '/relay'],
    ['in the home folder', { env: { RELAY_REGISTRY_DIR: '~/relay' } }, '/home/ada/relay'],
    ['the home folder', { env: { RELAY_REGISTRY_DIR: '~' } }, '/home/ada'],
    ['a tilde that is part of a name', { env: { RELAY_REGISTRY_DIR: '~relay' } }, '/work-dir/~relay'],
    ['relative to the config file', { config: { registryDir: 'relay' } }, '/home/ada/.config/opencode-mcp/relay'],
  ])('%s', (_, given, path) => {
    expect(load(given).settings.registryDir).toEqual({ path, explicit: true });
  });
});

describe('the default credential', () => {
  const value = (password: string) => ({ kind: 'value', value: password });
  const fromFile = { username: 'ada', password: 'c' };
  it.each<[name: string, given: Case, expected: unknown]>([
    ['a password', { env: { OPENCODE_SERVER_PASSWORD: 'p' } }, { password: value('p') }],
    ['a user name without a password gives no credential', { env: { OPENCODE_SERVER_USERNAME: 'ada' } }, undefined],
    ['an empty password gives no credential', { env: { OPENCODE_SERVER_PASSWORD: '' } }, undefined],
    ['from the config file', { config: fromFile }, { username: 'ada', password: value('c') }],
    [
      'user name and password each follow their own precedence',
      { env: { OPENCODE_SERVER_PASSWORD: 'e' }, config: fromFile },
      { username: 'ada', password: value('e') },
    ],
    [
      'from environment and config file',
      { env: { OPENCODE_SERVER_USERNAME: 'bob' }, config: fromFile },
      { username: 'bob', password: value('c') },
    ],
    [
      'an empty variable leaves the config file in force',
      { env: { OPENCODE_SERVER_PASSWORD: '' }, config: { password: { file: 'pw' } } },
      { password: { kind: 'file', path: '/home/ada/.config/opencode-mcp/pw' } },
    ],
  ])('%s', (_, given, expected) => {
    expect(load(given).settings.defaultCredential).toEqual(expected);
  });

  it.each(['a:b', 'a\nb', 'a\u0000'])('refuses the user name %j', (username) => {
    const expected = `expected a user name without a colon, control or invisible characters, got ${JSON.stringify(username)}`;
    expect(problemsOf({ env: { OPENCODE_SERVER_USERNAME: username } })).toEqual([
      `OPENCODE_SERVER_USERNAME: ${expected}`,
    ]);
    expect(problemsOf({ config: { username } })).toEqual([`${CONFIG_PATH}: username: ${expected}`]);
  });
});

describe('an invalid value', () => {
  const interval = 'a whole number of milliseconds from 1000 to 2147483647';
  const sources = 'all, or a comma list of local-relay, service, tailscale, mdns, static';
  const ports = 'none, or a comma list of at most 16 ports from 1 to 65535';
  const seventeenPorts = Array.from({ length: 17 }, (_, index) => 1 + index).join(',');
  it.each([
    ...['3e4', '30s', '-1', '+5000', '3000.5', '0x7d0', ' 3000', '٣٠٠٠', '999', '2147483648'].map(
      (text) => ['DISCOVERY_INTERVAL_MS', text, interval] as const,
    ),
    ['HEALTH_CHECK_TIMEOUT_MS', '60001', 'a whole number of milliseconds from 100 to 60000'],
    ['HEALTH_CHECK_TIMEOUT_MS', '99', 'a whole number of milliseconds from 100 to 60000'],
    ['SEND_TIMEOUT_MS', '999', 'a whole number of milliseconds from 1000 to 86400000'],
    ['SEND_TIMEOUT_MS', '86400001', 'a whole number of milliseconds from 1000 to 86400000'],
    ['OPENCODE_MCP_HEALTH_CONCURRENCY', '0', 'a whole number from 1 to 256'],
    ['OPENCODE_MCP_HEALTH_CONCURRENCY', '257', 'a whole number from 1 to 256'],
    ['OPENCODE_TAILNET_TAGS', 'tag:a,server', 'a comma list of tags such as tag:ci-2 (letters, digits, dashes)'],
    ['OPENCODE_TAILNET_PORTS', '4096,65536', ports],
    ['OPENCODE_TAILNET_PORTS', seventeenPorts, ports],
    ['TRANSPORT', 'mdns,dns', sources],
    ['TRANSPORT', 'all,dns', sources],
    ['TRANSPORT', ',', sources],
    ['OPENCODE_MCP_TOOLSETS', 'core,admin', 'all, or a comma list of core, instances, sessions, inspect'],
    ['OPENCODE_MCP_READ_ONLY', 'maybe', '1, true, yes, on, 0, false, no or off'],
    ['OPENCODE_MCP_LOG_LEVEL', 'trace', 'one of debug, info, warn, error'],
    ['OPENCODE_BIN', '  ', 'a path or the name of a program'],
  ] as const)('%s=%s', (variable, text, expected) => {
    expect(problemsOf({ env: { [variable]: text } })).toEqual([`${variable}: expected ${expected}, got "${text}"`]);
  });

  it.each<[name: string, given: Case, expected: string]>([
    ['a negative flag', { argv: ['--interval-ms', '-1'] }, `--interval-ms: expected ${interval}, got "-1"`],
    ['an empty flag', { argv: ['--interval-ms='] }, `--interval-ms: expected ${interval}, got ""`],
    ['an empty path', { argv: ['--registry-dir='] }, '--registry-dir: expected a path, got ""'],
    ['an empty config path', { argv: ['--config='] }, '--config: expected a path, got ""'],
    [
      'a value with line breaks and control characters is escaped',
      { env: { TRANSPORT: 'a\nb\u001b[31m\u202e\u200b' } },
      `TRANSPORT: expected ${sources}, got "a\\nb\\u001b[31m\\u{202e}\\u{200b}"`,
    ],
    [
      'a very long value is truncated',
      { env: { TRANSPORT: 'x'.repeat(5000) } },
      `TRANSPORT: expected ${sources}, got "${'x'.repeat(80)}…"`,
    ],
    [
      'a relative path on the relay',
      { env: { RELAY_REMOTE_REGISTRY_DIR: 'relay' } },
      'RELAY_REMOTE_REGISTRY_DIR: expected an absolute path without control characters, got "relay"',
    ],
    [
      'a command on two lines',
      { env: { RELAY_SSH_CMD: 'ssh a\nb' } },
      'RELAY_SSH_CMD: expected a command on one line, got "ssh a\\nb"',
    ],
  ])('%s', (_, given, expected) => {
    expect(problemsOf(given)).toEqual([expected]);
  });

  it.each<[key: string, value: unknown, expected: string]>([
    ['discoveryIntervalMs', 3000.5, `${interval}, got 3000.5`],
    ['transport', [], `${sources}, got ""`],
    ['transport', [1], `${sources}, got an array with values that are not strings`],
    ['registryDir', 'a\0b', 'a path, got "a\\u0000b"'],
  ])('in the config file: %s %j', (key, value, expected) => {
    expect(problemsOf({ config: { [key]: value } })).toEqual([`${CONFIG_PATH}: ${key}: expected ${expected}`]);
  });

  it('is ignored if a value of higher precedence is set', () => {
    expect(
      load({ argv: ['--interval-ms', '5000'], env: { DISCOVERY_INTERVAL_MS: 'x' } }).settings.discoveryIntervalMs,
    ).toBe(5000);
  });

  it('does not hide other invalid values: all are reported together', () => {
    expect(
      problemsOf({
        argv: ['--bogus', '--log-level', 'loud'],
        env: { SEND_TIMEOUT_MS: '1' },
        config: {
          bogus: 1,
          readOnly: 1,
          password: '',
          instances: [{ name: 'a', url: 'x', bogus: 1 }, 5],
          credentials: [{ password: 'p' }],
        },
      }).map((line) => line.replace(/: expected.*| \(.*/, '')),
    ).toEqual([
      '--bogus: unknown flag, see --help',
      `${CONFIG_PATH}: bogus: unknown key; opencode-mcp help settings lists the keys`,
      `${CONFIG_PATH}: readOnly`,
      `${CONFIG_PATH}: password`,
      `${CONFIG_PATH}: credentials[0]`,
      `${CONFIG_PATH}: instances[0].bogus: unknown key; opencode-mcp help settings lists the keys`,
      `${CONFIG_PATH}: instances[0].url`,
      `${CONFIG_PATH}: instances[1]`,
      'SEND_TIMEOUT_MS',
      '--log-level',
    ]);
  });
});

it('warns of an unknown environment variable if it resembles one of ours', () => {
  const env = { OPENCODE_MCP_READONLY: '1', OPENCODE_MCP_SOMETHING_ELSE: '1', READONLY: '1', TRANSPORTS: 'x' };
  expect(load({ env }).warnings).toEqual([
    'OPENCODE_MCP_READONLY: unknown environment variable; did you mean OPENCODE_MCP_READ_ONLY?',
  ]);
});

describe('any input gives settings or a SettingsError', () => {
  const words = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom(...' 0 5000 all mdns ~ true { constructor __proto__ - -- ='.split(' '), '9'.repeat(400)),
  );
  const variables = ROWS.flatMap((row) => row.env ?? []);
  const flagWords = fc.oneof(
    words,
    fc.constantFrom(
      ...ROWS.flatMap((row) =>
        row.flag === undefined ? [] : [`--${row.flag}`, `--no-${row.flag}`, `--${row.flag}=x`],
      ),
    ),
  );

  it('in the environment and the flags', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.oneof(fc.constantFrom(...variables, 'XDG_CONFIG_HOME'), words), words),
        fc.array(flagWords),
        (env, argv) => {
          for (const line of problemsOf({ env, argv })) expect(line).not.toBe('');
        },
      ),
      { numRuns: 500 },
    );
  });

  it('in the config file', () => {
    const json = fc.jsonValue();
    const keys = 'name host source url headers username password env file command __proto__'.split(' ');
    const secret = fc.oneof(
      json,
      fc.record({ env: words }),
      fc.record({ file: words }),
      fc.record({ command: fc.array(words) }),
      words,
    );
    const entry = fc.oneof(
      json,
      fc.dictionary(fc.constantFrom(...keys), fc.oneof(words, secret)),
      fc.record(
        { name: words, url: fc.oneof(fc.webUrl(), words), headers: fc.dictionary(words, secret), password: secret },
        { requiredKeys: ['name', 'url'] },
      ),
    );
    const config = fc.oneof(
      json,
      words,
      fc.dictionary(fc.constantFrom(...ROWS.flatMap((row) => row.key ?? [])), fc.oneof(json, fc.array(entry), secret)),
    );
    fc.assert(
      fc.property(config, (value) => {
        for (const line of problemsOf({ config: value })) expect(line).not.toBe('');
      }),
      { numRuns: 500 },
    );
  });
});

describe('opencode-connected', () => {
  it('reads its settings from the environment, then from the config file', () => {
    const env = {
      RELAY_SSH_CMD: 'ssh user@relay',
      RELAY_REMOTE_REGISTRY_DIR: '/srv/relay',
      INSTANCE_NAME: 'work',
      OPENCODE_BIN: 'bin/opencode',
      OPENCODE_LAN_PORT: '4777',
    };
    const config = { relaySshCommand: 'ssh other', relayRegistryDir: '/of/file', opencodeBin: './opencode' };
    expect(load({ env, config }).settings.connected).toEqual({
      relaySshCommand: 'ssh user@relay',
      relayRegistryDir: { path: '/srv/relay', explicit: true },
      instanceName: 'work',
      opencodeBin: '/work-dir/bin/opencode',
      lanPort: 4777,
    });
    expect(load({ config }).settings.connected).toEqual({
      relaySshCommand: 'ssh other',
      relayRegistryDir: { path: '/of/file', explicit: true },
      opencodeBin: '/home/ada/.config/opencode-mcp/opencode',
    });
  });

  it('keeps a bare program name, and uses the local registry path for the relay by default', () => {
    const env = { OPENCODE_BIN: 'opencode-dev', RELAY_REGISTRY_DIR: '/a/b' };
    expect(load({ env }).settings.connected).toEqual({
      opencodeBin: 'opencode-dev',
      relayRegistryDir: { path: '/a/b', explicit: true },
    });
  });
});

describe('the state directories', () => {
  it.each([
    ['/var/ada', '/var/ada'],
    ['state', '/home/ada/.local/state'],
  ])('of opencode-mcp and OpenCode are below XDG_STATE_HOME unless it is a relative path: %s', (given, expected) => {
    expect(load({ env: { XDG_STATE_HOME: given } }).settings).toMatchObject({
      stateDir: `${expected}/opencode-mcp`,
      opencodeStateDir: `${expected}/opencode`,
    });
  });

  it.each([
    ['/var/lib/opencode-mcp-node/ada', '/var/lib/opencode-mcp-node/ada'],
    ['', '/var/ada/opencode-mcp'],
    ['relative', '/var/ada/opencode-mcp'],
    ['/one:/two', '/var/ada/opencode-mcp'],
  ])('of the node service are STATE_DIRECTORY if it is one absolute path: "%s"', (given, expected) => {
    const env = { STATE_DIRECTORY: given, XDG_STATE_HOME: '/var/ada' };
    expect(load({ env }).settings.serviceDir).toBe(expected);
  });
});
