import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readTextFile } from '../../src/config/file/text-file.ts';
import { SettingsError } from '../../src/config/settings.ts';
import { tempDir } from '../rig/temp.ts';
import { CONFIG_PATH, HOME, load, loadFrom, problemsOf, type Case } from './load-case.ts';

const DEBUG = JSON.stringify({ logLevel: 'debug' });
const WARN = JSON.stringify({ logLevel: 'warn' });

describe('the path of the config file', () => {
  const cases: readonly (Case & { name: string; expected: string })[] = [
    { name: 'in ~/.config', config: { logLevel: 'debug' }, expected: 'debug' },
    {
      name: 'in XDG_CONFIG_HOME, before ~/.config',
      env: { XDG_CONFIG_HOME: '/xdg' },
      config: { logLevel: 'warn' },
      files: { '/xdg/opencode-mcp/config.json': DEBUG },
      expected: 'debug',
    },
    {
      name: 'in ~/.config when XDG_CONFIG_HOME is relative, as its specification has it',
      env: { XDG_CONFIG_HOME: 'xdg' },
      config: { logLevel: 'debug' },
      files: { '/work-dir/xdg/opencode-mcp/config.json': WARN },
      expected: 'debug',
    },
    {
      name: 'given by a flag',
      argv: ['--config', '/etc/c.json'],
      config: { logLevel: 'warn' },
      files: { '/etc/c.json': DEBUG },
      expected: 'debug',
    },
    {
      name: 'given by a flag, relative',
      argv: ['--config=c.json'],
      files: { '/work-dir/c.json': DEBUG },
      expected: 'debug',
    },
    {
      name: 'given by a flag, in the home folder',
      argv: ['--config', '~/c.json'],
      files: { [`${HOME}/c.json`]: DEBUG },
      expected: 'debug',
    },
    { name: 'nowhere', expected: 'info' },
  ];
  it.each(cases)('$name', ({ expected, ...given }) => {
    expect(load(given).settings.logLevel).toBe(expected);
  });

  it('a file given by a flag must exist', () => {
    expect(problemsOf({ argv: ['--config', 'c.json'], config: {} })).toEqual([
      '--config: cannot read /work-dir/c.json: no such file',
    ]);
  });

  it('an unreadable default file is an error', () => {
    const readFile = () => {
      throw Object.assign(new Error('EACCES: no'), { code: 'EACCES' });
    };
    expect(() => loadFrom({ argv: [], env: {}, home: HOME, cwd: '/', readFile })).toThrow(
      new SettingsError(`config file: cannot read ${CONFIG_PATH}: permission denied`),
    );
  });

  it('a file in place of its folder counts as missing', () => {
    const readFile = () => {
      throw Object.assign(new Error('ENOTDIR: no'), { code: 'ENOTDIR' });
    };
    expect(loadFrom({ argv: [], env: {}, home: HOME, cwd: '/', readFile }).warnings).toEqual([]);
  });
});

describe('the JSON', () => {
  it('may begin with a byte order mark', () => {
    expect(load({ config: `\ufeff${DEBUG}` }).settings.logLevel).toBe('debug');
  });

  it.each([
    { name: 'a trailing comma', text: '{\n"logLevel": "warn",\n}', line: ' (line 3)' },
    { name: 'a comment', text: '{\n\n// levels\n"logLevel": "warn"}', line: ' (line 3)' },
    { name: 'single quotes', text: '{\n"password":\n\'hunter2\'}', line: ' (line 3)' },
    { name: 'no quotes', text: '{"a": "\\"}",\n"password": hunter2 }', line: ' (line 2)' },
    { name: 'a string over two lines', text: '{\n"password": "hun\nter2"}', line: ' (line 2)' },
    { name: 'an end too early', text: '{"password": "hunter2"', line: ' (line 1)' },
    { name: 'nothing at all', text: '', line: '' },
  ])('$name is reported with its line and without the text', ({ text, line }) => {
    const problems = problemsOf({ config: text });
    expect(problems).toEqual([
      `${CONFIG_PATH}: is not valid JSON${line}; comments and trailing commas are not allowed`,
    ]);
  });

  it.each([
    { json: [], kind: 'an array' },
    { json: null, kind: 'null' },
    { json: 'hunter2', text: '"hunter2"', kind: 'a string' },
  ])('must be an object, not $kind', ({ json, kind }) => {
    expect(problemsOf({ config: JSON.stringify(json) })).toEqual([`${CONFIG_PATH}: expected an object, got ${kind}`]);
  });
});

const KEYS = '; opencode-mcp help settings lists the keys';

describe('an unknown key', () => {
  const url = 'http://a';
  it.each([
    { name: 'near one', config: { logLevl: 'warn' }, expected: 'logLevl: unknown key; did you mean logLevel?' },
    {
      name: 'written another way',
      config: { registry_dir: '/x' },
      expected: 'registry_dir: unknown key; did you mean registryDir?',
    },
    { name: 'like nothing', config: { servers: [] }, expected: `servers: unknown key${KEYS}` },
    { name: 'that every object has', config: '{"__proto__": {}}', expected: `__proto__: unknown key${KEYS}` },
    {
      name: 'of an instance',
      config: { instances: [{ name: 'a', url, pasword: 'hunter2' }] },
      expected: 'instances[0].pasword: unknown key; did you mean password?',
    },
    {
      name: 'of a credential',
      config: { credentials: [{ name: 'a', hosts: 'a', password: 'p' }] },
      expected: 'credentials[0].hosts: unknown key; did you mean host?',
    },
  ])('$name', ({ config, expected }) => {
    expect(problemsOf({ config })).toEqual([`${CONFIG_PATH}: ${expected}`]);
  });
});

describe('the mode of a file', () => {
  const secret = { password: 'hunter2' };
  const readable = 'holds a secret, and other users can read it';
  const writable = 'other users can change it, and it can name commands to run';
  it.each([
    { name: 'closed', mode: 0o600, config: secret, expected: [] },
    { name: 'closed, read-only', mode: 0o400, config: secret, expected: [] },
    { name: 'readable by the group', mode: 0o640, config: secret, expected: [`${readable} (mode 0640)`] },
    { name: 'readable by others', mode: 0o604, config: secret, expected: [`${readable} (mode 0604)`] },
    {
      name: 'readable, with a password for one instance',
      mode: 0o644,
      config: { instances: [{ name: 'a', url: 'https://a', password: 'hunter2' }] },
      expected: [`${readable} (mode 0644)`],
    },
    {
      name: 'readable, with a header',
      mode: 0o644,
      config: { instances: [{ name: 'a', url: 'https://a', headers: { 'CF-Access-Client-Secret': 'hunter2' } }] },
      expected: [`${readable} (mode 0644)`],
    },
    {
      name: 'readable, with a rule',
      mode: 0o644,
      config: { credentials: [{ name: 'a', password: 'hunter2' }] },
      expected: [`${readable} (mode 0644)`],
    },
    { name: 'readable, without a secret of its own', mode: 0o644, config: { password: { file: 'pw' } }, expected: [] },
    { name: 'writable by others', mode: 0o662, config: {}, expected: [`${writable} (mode 0662)`] },
  ])('$name', ({ mode, config, expected }) => {
    expect(load({ mode, config }).warnings).toEqual(
      expected.map((warning) => `${CONFIG_PATH}: ${warning}; run: chmod 600 ${CONFIG_PATH}`),
    );
  });
});

describe('secrets', () => {
  const folder = '/home/ada/.config/opencode-mcp';
  it.each([
    { name: 'a value', secret: 'p', expected: { kind: 'value', value: 'p' } },
    { name: 'a variable, read now', secret: { env: 'PW' }, expected: { kind: 'value', value: 'from env' } },
    {
      name: 'a file beside the config file',
      secret: { file: 'keys/pw' },
      expected: { kind: 'file', path: `${folder}/keys/pw` },
    },
    { name: 'a file in the home folder', secret: { file: '~/pw' }, expected: { kind: 'file', path: '/home/ada/pw' } },
    {
      name: 'a file elsewhere',
      secret: { file: '/run/secrets/pw' },
      expected: { kind: 'file', path: '/run/secrets/pw' },
    },
    {
      name: 'a command',
      secret: { command: ['pass', 'show', 'oc'] },
      expected: { kind: 'command', argv: ['pass', 'show', 'oc'] },
    },
  ])('$name, for every password', ({ secret, expected }) => {
    const { settings } = load({
      env: { PW: 'from env' },
      config: {
        password: secret,
        credentials: [{ host: 'a', password: secret }],
        instances: [{ name: 'a', url: 'https://a', username: 'ada', password: secret }],
      },
    });
    expect(settings.defaultCredential).toEqual({ password: expected });
    expect(settings.credentialRules).toEqual([{ host: 'a', credential: { password: expected } }]);
    expect(settings.instances[0]?.credential).toEqual({ username: 'ada', password: expected });
  });

  const forms = 'expected a string, {"env": NAME}, {"file": PATH} or {"command": [PROGRAM, ARGUMENT, …]}';
  it.each([
    {
      name: 'a value in place of a name',
      secret: { env: '$hunter2' },
      expected: 'expected the name of an environment variable after "env", without $',
    },
    { name: 'an empty string', secret: '', expected: 'expected a secret, got an empty string' },
    { name: 'an empty path', secret: { file: '' }, expected: 'expected a path after "file"' },
    { name: 'a path with a NUL', secret: { file: 'a\0' }, expected: 'expected a path after "file"' },
    {
      name: 'no program',
      secret: { command: [] },
      expected: 'expected a program and its arguments after "command", as [PROGRAM, ARGUMENT, …]',
    },
    {
      name: 'an argument with a NUL',
      secret: { command: ['a', '\0'] },
      expected: 'expected a program and its arguments after "command", as [PROGRAM, ARGUMENT, …]',
    },
    { name: 'a shell line', secret: { command: 'pass show hunter2' }, expected: `${forms}, got an object` },
    { name: 'a number', secret: 12345, expected: `${forms}, got a number` },
    { name: 'two ways at once', secret: { env: 'PW', file: 'hunter2' }, expected: `${forms}, got an object` },
    { name: 'no way', secret: {}, expected: `${forms}, got an object` },
    { name: 'nothing', secret: null, expected: `${forms}, got null` },
  ])('$name is an error', ({ secret, expected }) => {
    const env = { PW: 'hunter2', EMPTY: '' };
    expect(problemsOf({ env, config: { password: secret } })).toEqual([`${CONFIG_PATH}: password: ${expected}`]);
    expect(problemsOf({ env, config: { credentials: [{ name: 'a', password: secret }] } })).toEqual([
      `${CONFIG_PATH}: credentials[0].password: ${expected}`,
    ]);
  });

  it.each([
    ['a variable that is not set', 'NOWHERE'],
    ['a variable that is empty', 'EMPTY'],
    ['a name every object knows', 'constructor'],
  ])('%s locks the instances that need it, and is no error', (_, variable) => {
    const password = { env: variable };
    const { settings } = load({ env: { EMPTY: '' }, config: { password, credentials: [{ name: 'a', password }] } });
    const unset = { password: { kind: 'unset', variable } };
    expect(settings.defaultCredential).toEqual(unset);
    expect(settings.credentialRules).toEqual([{ name: 'a', credential: unset }]);
  });

  it('a rule without a password is an error', () => {
    expect(problemsOf({ config: { credentials: [{ name: 'a' }] } })).toEqual([
      `${CONFIG_PATH}: credentials[0].password: ${forms}, got nothing`,
    ]);
  });
});

describe('credential rules', () => {
  it('keep their order and fields', () => {
    const config = {
      credentials: [
        { name: 'api-*', username: 'ada', password: 'p1' },
        { host: '*.ts.net', source: 'TAIL*', password: 'p2' },
        { source: 'mdns', name: 'living room', host: 'pi.local', password: 'p3' },
      ],
    };
    expect(load({ config }).settings.credentialRules).toEqual([
      { name: 'api-*', credential: { username: 'ada', password: { kind: 'value', value: 'p1' } } },
      { host: '*.ts.net', source: 'TAIL*', credential: { password: { kind: 'value', value: 'p2' } } },
      {
        source: 'mdns',
        name: 'living room',
        host: 'pi.local',
        credential: { password: { kind: 'value', value: 'p3' } },
      },
    ]);
  });

  const mdns = ': a rule for mdns needs the exact name or host, without *: anyone on the LAN can advertise anything';
  it.each([
    {
      name: 'nothing to match',
      rule: {},
      expected:
        ': expected at least one of name, host and source; for a password that fits everywhere use the key "password"',
    },
    {
      name: 'a source that does not exist',
      rule: { source: 'mdsn' },
      expected:
        '.source: expected a pattern that fits one of local-relay, service, tailscale, mdns, static, got "mdsn"',
    },
    { name: 'mdns without a name', rule: { source: 'mdns' }, expected: mdns },
    { name: 'mdns with a wildcard name', rule: { source: 'MDNS', name: 'a*' }, expected: mdns },
    { name: 'mdns with a wildcard host beside a name', rule: { source: 'mdns', name: 'a', host: '*' }, expected: mdns },
    {
      name: 'an empty pattern',
      rule: { host: '' },
      expected: '.host: expected 1 to 256 characters, none of them control or invisible, got ""',
    },
    {
      name: 'an invisible character',
      rule: { name: 'a\u200b' },
      expected: '.name: expected 1 to 256 characters, none of them control or invisible, got "a\\u{200b}"',
    },
    { name: 'a pattern that is no text', rule: { name: 5 }, expected: '.name: expected a string, got a number' },
    {
      name: 'a user name with a colon',
      rule: { name: 'a', username: 'a:b' },
      expected: '.username: expected a user name without a colon, control or invisible characters, got "a:b"',
    },
  ])('$name is an error', ({ rule, expected }) => {
    expect(problemsOf({ config: { credentials: [{ ...rule, password: 'hunter2' }] } })).toEqual([
      `${CONFIG_PATH}: credentials[0]${expected}`,
    ]);
  });

  it('must be an array', () => {
    expect(problemsOf({ config: { credentials: {} } })).toEqual([
      `${CONFIG_PATH}: credentials: expected an array, got an object`,
    ]);
  });
});

describe('approvals', () => {
  it('keep their order', () => {
    const approvals = [
      { permission: 'bash', pattern: 'git status*', approve: 'model' },
      { instance: 'server-*', approve: 'human' },
      { approve: 'never' },
    ];
    expect(load({ config: { approvals } }).settings.approvalRules).toEqual(approvals);
  });

  it.each([
    { name: 'a word that nobody is', rule: { approve: 'me' }, problem: /approvals\[0\]\.approve: expected one of ask/ },
    { name: 'no word', rule: { permission: 'bash' }, problem: /approvals\[0\]\.approve: expected one of ask/ },
    { name: 'an unknown key', rule: { tool: 'bash', approve: 'model' }, problem: /approvals\[0\]\.tool: unknown key/ },
    {
      name: 'an empty pattern',
      rule: { pattern: '', approve: 'model' },
      problem: /approvals\[0\]\.pattern: expected 1 to 256/,
    },
  ])('$name is an error', ({ rule, problem }) => {
    const problems = problemsOf({ config: { approvals: [rule] } });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(problem);
  });
});

describe('the real reader', () => {
  it('returns text and mode', async () => {
    await using folder = tempDir();
    const path = join(folder.path, 'c.json');
    writeFileSync(path, 'žluť', { mode: 0o640 });
    expect(readTextFile(path)).toEqual({ text: 'žluť', mode: 0o640 });
  });

  it('reports why a file cannot be read', async () => {
    await using folder = tempDir();
    mkdirSync(join(folder.path, 'folder'));
    writeFileSync(join(folder.path, 'large'), Buffer.alloc(1024 * 1024 + 1));
    execFileSync('mkfifo', [join(folder.path, 'pipe')]);
    const problems = ['missing', 'folder', 'large', 'pipe'].map((name) => {
      try {
        loadFrom({ argv: ['--config', name], env: {}, home: HOME, cwd: folder.path, readFile: readTextFile });
        return 'none';
      } catch (error) {
        return String(error).replace(folder.path, '…');
      }
    });
    expect(problems).toEqual([
      'SettingsError: --config: cannot read …/missing: no such file',
      'SettingsError: --config: cannot read …/folder: it is a folder',
      'SettingsError: --config: cannot read …/large: it is too large',
      'SettingsError: --config: cannot read …/pipe: it is not a regular file',
    ]);
  });

  it('reads /dev files, which a shell substitutes', () => {
    expect(readTextFile('/dev/null').text).toBe('');
  });
});
