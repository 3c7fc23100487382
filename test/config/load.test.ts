import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OPTIONS, type Row, ROWS } from '../../src/config/options.ts';
import type { Settings } from '../../src/config/settings.ts';
import { CONFIG_PATH, load, problemsOf } from './load-case.ts';

describe('defaults', () => {
  it('apply if nothing is set', () => {
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

  it('apply if variables are empty', () => {
    const env = Object.fromEntries(ROWS.flatMap((row) => (row.env === undefined ? [] : [[row.env, '']])));
    expect(load({ env })).toEqual(load());
  });
});

describe('precedence', () => {
  /** By option: how to read it, and for flag, environment and config file what is written and the value that it gives. */
  const explicit = (path: string) => ({ path, explicit: true });
  const cases: Readonly<
    Record<string, readonly [(settings: Settings) => unknown, ...[written: unknown, value: unknown][]]>
  > = {
    registryDir: [
      (settings) => settings.registryDir,
      ['/a', explicit('/a')],
      ['/b', explicit('/b')],
      ['/c', explicit('/c')],
    ],
    discoveryIntervalMs: [
      (settings) => settings.discoveryIntervalMs,
      ['1000', 1000],
      ['2000', 2000],
      [2_147_483_647, 2_147_483_647],
    ],
    healthCheckTimeoutMs: [(settings) => settings.healthCheckTimeoutMs, ['100', 100], ['0200', 200], [60_000, 60_000]],
    healthConcurrency: [(settings) => settings.healthConcurrency, ['1', 1], ['2', 2], [256, 256]],
    sendTimeoutMs: [(settings) => settings.sendTimeoutMs, ['1000', 1000], ['2000', 2000], [86_400_000, 86_400_000]],
    transport: [
      (settings) => settings.sources,
      ['mdns', ['mdns']],
      [' static , local-relay,', ['local-relay', 'static']],
      [
        ['tailscale', 'static'],
        ['tailscale', 'static'],
      ],
    ],
    toolsets: [
      (settings) => settings.toolsets,
      ['core', ['core']],
      ['sessions,Core,core', ['core', 'sessions']],
      [['instances'], ['instances']],
    ],
    readOnly: [(settings) => settings.readOnly, ['false', false], ['Yes', true], [true, true]],
    approve: [(settings) => settings.approve, ['human', 'human'], ['Never', 'never'], ['model', 'model']],
    logLevel: [(settings) => settings.logLevel, ['debug', 'debug'], ['WARN', 'warn'], ['error', 'error']],
    lanPort: [(settings) => settings.connected.lanPort, ['1', 1], ['2', 2], [65_535, 65_535]],
    tailscaleSocket: [
      (settings) => settings.tailnet.socketPath,
      ['/a.sock', '/a.sock'],
      ['~/b.sock', '/home/ada/b.sock'],
      ['c.sock', '/home/ada/.config/opencode-mcp/c.sock'],
    ],
    nodePort: [(settings) => settings.tailnet.nodePort, ['1', 1], ['2', 2], [65_535, 65_535]],
    tailnetPorts: [
      (settings) => settings.tailnet.ports,
      ['none', []],
      ['4096, 4097,4096', [4096, 4097]],
      [[5000], [5000]],
    ],
    tailnetTags: [
      (settings) => settings.tailnet.tags,
      ['tag:a', ['tag:a']],
      ['tag:b, tag:b,tag:c-1', ['tag:b', 'tag:c-1']],
      [['tag:d'], ['tag:d']],
    ],
    tailnetUsers: [
      (settings) => settings.tailnet.users,
      ['ada@example.com', ['ada@example.com']],
      ['bob@github, eve@', ['bob@github', 'eve@']],
      ['ada@example.com', ['ada@example.com']],
    ],
    mdnsInterfaces: [
      (settings) => settings.mdnsInterfaces,
      ['none', []],
      ['eth0, wlan0,eth0', ['eth0', 'wlan0']],
      ['All', 'all'],
    ],
  };
  const withFlag = Object.entries<Row>(OPTIONS).flatMap(([name, { flag, env = '', key = '', only = 'opencode-mcp' }]) =>
    flag === undefined ? [] : [{ name, flag, env, key, program: only }],
  );
  it.each(withFlag)('$name: flag, environment, config file', ({ name, flag, env, key, program }) => {
    const [read, inFlag, inEnv, inConfig] = cases[name] ?? [];
    const argv = [`--${flag}=${String(inFlag?.[0])}`];
    const config = { [key]: inConfig?.[0] };
    const written = { [env]: String(inEnv?.[0]) };
    expect(read?.(load({ argv, env: written, config, program }).settings)).toEqual(inFlag?.[1]);
    expect(read?.(load({ env: written, config }).settings)).toEqual(inEnv?.[1]);
    expect(read?.(load({ env: { [env]: '' }, config }).settings)).toEqual(inConfig?.[1]);
  });

  it.each([
    { name: 'all from the environment', env: { TRANSPORT: 'all' }, expected: 'all' },
    { name: 'all among others', env: { TRANSPORT: 'mdns,all' }, expected: 'all' },
    { name: 'only spaces', env: { TRANSPORT: '  ' }, expected: 'all' },
    { name: 'a string in the config file', config: { transport: 'static,mdns' }, expected: ['mdns', 'static'] },
    { name: 'an empty string in the config file', config: { transport: '' }, expected: 'all' },
    { name: 'an empty flag', argv: ['--transport='], env: { TRANSPORT: 'mdns' }, expected: 'all' },
  ])('transport: $name', ({ expected, ...given }) => {
    expect(load(given).settings.sources).toEqual(expected);
  });

  it('takes the last of a flag given twice', () => {
    expect(
      load({ argv: ['--read-only', '--log-level=warn', '--no-read-only', '--log-level', 'error'] }).settings,
    ).toMatchObject({
      readOnly: false,
      logLevel: 'error',
    });
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

describe('paths', () => {
  it.each([
    { name: 'absolute', argv: ['--registry-dir', '/srv/./relay/'], expected: '/srv/relay' },
    {
      name: 'relative to the working directory from a flag',
      argv: ['--registry-dir', 'relay'],
      expected: '/work-dir/relay',
    },
    {
      name: 'relative to the working directory from the environment',
      env: { RELAY_REGISTRY_DIR: '../relay' },
      expected: '/relay',
    },
    { name: 'in the home folder', env: { RELAY_REGISTRY_DIR: '~/relay' }, expected: '/home/ada/relay' },
    { name: 'the home folder', env: { RELAY_REGISTRY_DIR: '~' }, expected: '/home/ada' },
    { name: 'a tilde that is part of a name', env: { RELAY_REGISTRY_DIR: '~relay' }, expected: '/work-dir/~relay' },
    {
      name: 'relative to the config file from the config file',
      config: { registryDir: 'relay' },
      expected: '/home/ada/.config/opencode-mcp/relay',
    },
  ])('registry folder: $name', ({ expected, ...given }) => {
    expect(load(given).settings.registryDir).toEqual({ path: expected, explicit: true });
  });

  it('a default path that is set counts as explicit', () => {
    expect(load({ env: { RELAY_REGISTRY_DIR: '/tmp/opencode-relay' } }).settings.registryDir.explicit).toBe(true);
  });
});

describe('the default credential', () => {
  const value = (password: string) => ({ kind: 'value', value: password });
  it.each([
    { name: 'a password', env: { OPENCODE_SERVER_PASSWORD: 'p' }, expected: { password: value('p') } },
    {
      name: 'user name and password',
      env: { OPENCODE_SERVER_USERNAME: 'ada', OPENCODE_SERVER_PASSWORD: 'p' },
      expected: { username: 'ada', password: value('p') },
    },
    { name: 'a user name alone gives none', env: { OPENCODE_SERVER_USERNAME: 'ada' }, expected: undefined },
    { name: 'an empty password is none', env: { OPENCODE_SERVER_PASSWORD: '' }, expected: undefined },
    {
      name: 'from the config file',
      config: { username: 'ada', password: 'c' },
      expected: { username: 'ada', password: value('c') },
    },
    {
      name: 'each part by its own precedence',
      env: { OPENCODE_SERVER_PASSWORD: 'e' },
      config: { username: 'ada', password: 'c' },
      expected: { username: 'ada', password: value('e') },
    },
    {
      name: 'an empty variable leaves the config file in force',
      env: { OPENCODE_SERVER_PASSWORD: '' },
      config: { password: { file: 'pw' } },
      expected: { password: { kind: 'file', path: '/home/ada/.config/opencode-mcp/pw' } },
    },
  ])('$name', ({ expected, ...given }) => {
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
  const milliseconds = 'expected a whole number of milliseconds from 1000 to 2147483647';
  const sources = 'expected all, or a comma list of local-relay, service, tailscale, mdns, static';
  const timeouts = 'expected a whole number of milliseconds from';
  const ports = 'expected none, or a comma list of at most 16 ports from 1 to 65535';
  it.each([
    ...['3e4', '30s', '-1', '+5000', '3000.5', '0x7d0', ' 3000', '٣٠٠٠', '999', '2147483648'].map((text) => ({
      name: `the interval ${text}`,
      env: { DISCOVERY_INTERVAL_MS: text },
      expected: `DISCOVERY_INTERVAL_MS: ${milliseconds}, got "${text}"`,
    })),
    {
      name: 'a tag without its prefix',
      env: { OPENCODE_TAILNET_TAGS: 'tag:a,server' },
      expected:
        'OPENCODE_TAILNET_TAGS: expected a comma list of tags such as tag:ci-2 (letters, digits, dashes), got "tag:a,server"',
    },
    {
      name: 'a port too high',
      env: { OPENCODE_TAILNET_PORTS: '4096,65536' },
      expected: `OPENCODE_TAILNET_PORTS: ${ports}, got "4096,65536"`,
    },
    {
      name: 'more ports than are probed',
      env: { OPENCODE_TAILNET_PORTS: Array.from({ length: 17 }, (_, index) => 1 + index).join(',') },
      expected: `OPENCODE_TAILNET_PORTS: ${ports}, got "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"`,
    },
    { name: 'a negative flag', argv: ['--interval-ms', '-1'], expected: `--interval-ms: ${milliseconds}, got "-1"` },
    { name: 'an empty flag', argv: ['--interval-ms='], expected: `--interval-ms: ${milliseconds}, got ""` },
    {
      name: 'a fraction in the config file',
      config: { discoveryIntervalMs: 3000.5 },
      expected: `${CONFIG_PATH}: discoveryIntervalMs: ${milliseconds}, got 3000.5`,
    },
    {
      name: 'health timeout, too large',
      env: { HEALTH_CHECK_TIMEOUT_MS: '60001' },
      expected: `HEALTH_CHECK_TIMEOUT_MS: ${timeouts} 100 to 60000, got "60001"`,
    },
    {
      name: 'health timeout, too small',
      argv: ['--health-timeout-ms=99'],
      expected: `--health-timeout-ms: ${timeouts} 100 to 60000, got "99"`,
    },
    {
      name: 'send timeout, too small',
      env: { SEND_TIMEOUT_MS: '999' },
      expected: `SEND_TIMEOUT_MS: ${timeouts} 1000 to 86400000, got "999"`,
    },
    {
      name: 'send timeout, too large',
      argv: ['--send-timeout-ms', '86400001'],
      expected: `--send-timeout-ms: ${timeouts} 1000 to 86400000, got "86400001"`,
    },
    {
      name: 'concurrency of none',
      env: { OPENCODE_MCP_HEALTH_CONCURRENCY: '0' },
      expected: 'OPENCODE_MCP_HEALTH_CONCURRENCY: expected a whole number from 1 to 256, got "0"',
    },
    {
      name: 'concurrency, too large',
      config: { healthConcurrency: 257 },
      expected: `${CONFIG_PATH}: healthConcurrency: expected a whole number from 1 to 256, got 257`,
    },
    { name: 'an unknown source', env: { TRANSPORT: 'mdns,dns' }, expected: `TRANSPORT: ${sources}, got "mdns,dns"` },
    {
      name: 'an unknown source beside all',
      argv: ['--transport=all,dns'],
      expected: `--transport: ${sources}, got "all,dns"`,
    },
    { name: 'a list of nothing', env: { TRANSPORT: ',' }, expected: `TRANSPORT: ${sources}, got ","` },
    { name: 'an empty array', config: { transport: [] }, expected: `${CONFIG_PATH}: transport: ${sources}, got ""` },
    {
      name: 'an array of numbers',
      config: { transport: [1] },
      expected: `${CONFIG_PATH}: transport: ${sources}, got an array with values that are not strings`,
    },
    {
      name: 'an unknown toolset',
      env: { OPENCODE_MCP_TOOLSETS: 'core,admin' },
      expected:
        'OPENCODE_MCP_TOOLSETS: expected all, or a comma list of core, instances, sessions, inspect, got "core,admin"',
    },
    {
      name: 'a doubtful read-only',
      env: { OPENCODE_MCP_READ_ONLY: 'maybe' },
      expected: 'OPENCODE_MCP_READ_ONLY: expected 1, true, yes, on, 0, false, no or off, got "maybe"',
    },
    {
      name: 'an unknown log level',
      argv: ['--log-level', 'trace'],
      expected: '--log-level: expected one of debug, info, warn, error, got "trace"',
    },
    { name: 'an empty path', argv: ['--registry-dir='], expected: '--registry-dir: expected a path, got ""' },
    {
      name: 'a path with a NUL',
      config: { registryDir: 'a\0b' },
      expected: `${CONFIG_PATH}: registryDir: expected a path, got "a\\u0000b"`,
    },
    { name: 'an empty config path', argv: ['--config='], expected: '--config: expected a path, got ""' },
    {
      name: 'a value that would break or bend the line',
      env: { TRANSPORT: 'a\nb\u001b[31m\u202e\u200b' },
      expected: `TRANSPORT: ${sources}, got "a\\nb\\u001b[31m\\u{202e}\\u{200b}"`,
    },
    {
      name: 'a very long value',
      env: { TRANSPORT: 'x'.repeat(5000) },
      expected: `TRANSPORT: ${sources}, got "${'x'.repeat(80)}…"`,
    },
  ])('$name', ({ expected, ...given }) => {
    expect(problemsOf(given)).toEqual([expected]);
  });

  it('is ignored if a value of higher precedence is set', () => {
    expect(
      load({ argv: ['--interval-ms', '5000'], env: { DISCOVERY_INTERVAL_MS: 'x' } }).settings.discoveryIntervalMs,
    ).toBe(5000);
  });

  it('does not hide others: all are reported at once', () => {
    expect(
      problemsOf({
        argv: ['--bogus', '--log-level', 'loud'],
        env: { SEND_TIMEOUT_MS: '1' },
        config: {
          bogus: 1,
          readOnly: 1,
          instances: [{ name: 'a', url: 'x', bogus: 1 }, 5],
          credentials: [{ password: 'p' }],
        },
      }).map((line) => line.replace(/: expected.*| \(.*/, '')),
    ).toEqual([
      '--bogus: unknown flag, see --help',
      `${CONFIG_PATH}: bogus: unknown key; opencode-mcp help settings lists the keys`,
      `${CONFIG_PATH}: readOnly`,
      `${CONFIG_PATH}: credentials[0]`,
      `${CONFIG_PATH}: instances[0].bogus: unknown key; opencode-mcp help settings lists the keys`,
      `${CONFIG_PATH}: instances[0].url`,
      `${CONFIG_PATH}: instances[1]`,
      'SEND_TIMEOUT_MS',
      '--log-level',
    ]);
  });
});

describe('a misspelled variable', () => {
  it('causes a warning if it resembles one of ours', () => {
    expect(load({ env: { OPENCODE_MCP_READONLY: '1' } }).warnings).toEqual([
      'OPENCODE_MCP_READONLY: unknown environment variable; did you mean OPENCODE_MCP_READ_ONLY?',
    ]);
  });

  it('is ignored otherwise', () => {
    expect(load({ env: { OPENCODE_MCP_SOMETHING_ELSE: '1', READONLY: '1', TRANSPORTS: 'x' } }).warnings).toEqual([]);
  });
});

describe('any input', () => {
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

  it('gives settings or a SettingsError', () => {
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

  it('gives settings or a SettingsError in the config file too', () => {
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
  const connected = (given: Parameters<typeof load>[0]): unknown => load(given).settings.connected;

  it('reads its settings from the environment', () => {
    const env = {
      RELAY_SSH_CMD: 'ssh user@relay',
      RELAY_REMOTE_REGISTRY_DIR: '/srv/relay',
      INSTANCE_NAME: 'work',
      OPENCODE_BIN: 'bin/opencode',
      OPENCODE_LAN_PORT: '4777',
    };
    expect(connected({ env })).toEqual({
      relaySshCommand: 'ssh user@relay',
      relayRegistryDir: { path: '/srv/relay', explicit: true },
      instanceName: 'work',
      opencodeBin: '/work-dir/bin/opencode',
      lanPort: 4777,
    });
  });

  it.each([
    ['RELAY_SSH_CMD', 'relaySshCommand', 'relaySshCommand'],
    ['RELAY_REMOTE_REGISTRY_DIR', 'relayRegistryDir', 'relayRegistryDir'],
    ['OPENCODE_BIN', 'opencodeBin', 'opencodeBin'],
  ] as const)('%s goes before %s of the config file', (variable, key, field) => {
    const config = { [key]: '/of/file' };
    const value = (path: string): unknown => (field === 'relayRegistryDir' ? { path, explicit: true } : path);
    expect(load({ config, env: { [variable]: '/of/env' } }).settings.connected[field]).toEqual(value('/of/env'));
    expect(load({ config }).settings.connected[field]).toEqual(value('/of/file'));
  });

  it('keeps a bare program name, and uses the local registry path for the relay by default', () => {
    expect(connected({ env: { OPENCODE_BIN: 'opencode-dev', RELAY_REGISTRY_DIR: '/a/b' } })).toMatchObject({
      opencodeBin: 'opencode-dev',
      relayRegistryDir: { path: '/a/b', explicit: true },
    });
  });

  it('resolves a relative program in the config file against its folder', () => {
    expect(connected({ config: { opencodeBin: './opencode' } })).toMatchObject({
      opencodeBin: '/home/ada/.config/opencode-mcp/opencode',
    });
  });

  it("has its own and OpenCode's state below XDG_STATE_HOME, unless that is relative", () => {
    expect(load({ env: { XDG_STATE_HOME: '/var/ada' } }).settings).toMatchObject({
      stateDir: '/var/ada/opencode-mcp',
      opencodeStateDir: '/var/ada/opencode',
    });
    expect(load({ env: { XDG_STATE_HOME: 'state' } }).settings).toMatchObject({
      stateDir: '/home/ada/.local/state/opencode-mcp',
      opencodeStateDir: '/home/ada/.local/state/opencode',
    });
  });

  it('keeps the state of the service in the folder from systemd, otherwise in the state directory', () => {
    const serviceDir = (env: Readonly<Record<string, string>>): string => load({ env }).settings.serviceDir;
    expect(serviceDir({ STATE_DIRECTORY: '/var/lib/opencode-mcp-node/ada' })).toBe('/var/lib/opencode-mcp-node/ada');
    for (const given of ['', 'relative', '/one:/two'])
      expect(serviceDir({ STATE_DIRECTORY: given, XDG_STATE_HOME: '/var/ada' })).toBe('/var/ada/opencode-mcp');
  });

  it.each([
    [{ RELAY_REMOTE_REGISTRY_DIR: 'relay' }, /^RELAY_REMOTE_REGISTRY_DIR: expected an absolute path/],
    [{ RELAY_SSH_CMD: 'ssh a\nb' }, /^RELAY_SSH_CMD: expected a command on one line/],
    [{ OPENCODE_BIN: '  ' }, /^OPENCODE_BIN: expected a path or the name of a program/],
  ])('%j is refused', (env, expected) => {
    expect(problemsOf({ env })).toEqual([expect.stringMatching(expected)]);
  });
});
