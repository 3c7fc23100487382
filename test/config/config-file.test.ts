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
  it.each<[name: string, options: Case, logLevel: string]>([
    ['in ~/.config', { config: { logLevel: 'debug' } }, 'debug'],
    [
      'in XDG_CONFIG_HOME, before ~/.config',
      { env: { XDG_CONFIG_HOME: '/xdg' }, config: WARN, files: { '/xdg/opencode-mcp/config.json': DEBUG } },
      'debug',
    ],
    [
      'in ~/.config when XDG_CONFIG_HOME is relative, as its specification says',
      { env: { XDG_CONFIG_HOME: 'xdg' }, config: DEBUG, files: { '/work-dir/xdg/opencode-mcp/config.json': WARN } },
      'debug',
    ],
    ['given by a flag', { argv: ['--config', '/etc/c.json'], config: WARN, files: { '/etc/c.json': DEBUG } }, 'debug'],
    ['given by a flag, relative', { argv: ['--config=c.json'], files: { '/work-dir/c.json': DEBUG } }, 'debug'],
    [
      'given by a flag, in the home folder',
      { argv: ['--config', '~/c.json'], files: { [`${HOME}/c.json`]: DEBUG } },
      'debug',
    ],
    ['without a file', {}, 'info'],
  ])('%s', (_, options, logLevel) => {
    expect(load(options).settings.logLevel).toBe(logLevel);
  });

  it('a file given by a flag must exist', () => {
    expect(problemsOf({ argv: ['--config', 'c.json'], config: {} })).toEqual([
      '--config: cannot read /work-dir/c.json: no such file',
    ]);
  });

  const loadFailing = (code: string) => {
    const readFile = () => {
      throw Object.assign(new Error(`${code}: no`), { code });
    };
    return loadFrom({ argv: [], env: {}, home: HOME, cwd: '/', readFile });
  };

  it('an unreadable default file is an error', () => {
    expect(() => loadFailing('EACCES')).toThrow(
      new SettingsError(`config file: cannot read ${CONFIG_PATH}: permission denied`),
    );
  });

  it('a file in place of the config folder counts as missing', () => {
    expect(loadFailing('ENOTDIR').warnings).toEqual([]);
  });
});

describe('the JSON', () => {
  it('may begin with a byte order mark', () => {
    expect(load({ config: `\ufeff${DEBUG}` }).settings.logLevel).toBe('debug');
  });

  it.each([
    ['a trailing comma', '{\n"logLevel": "warn",\n}', ' (line 3)'],
    ['a comment', '{\n\n// levels\n"logLevel": "warn"}', ' (line 3)'],
    ['single quotes', '{\n"password":\n\'hunter2\'}', ' (line 3)'],
    ['no quotes', '{"a": "\\"}",\n"password": hunter2 }', ' (line 2)'],
    ['a string over two lines', '{\n"password": "hun\nter2"}', ' (line 2)'],
    ['a missing brace', '{"password": "hunter2"', ' (line 1)'],
    ['an empty file', '', ''],
  ])('%s is reported with its line and without the text', (_, text, line) => {
    const problem = `${CONFIG_PATH}: is not valid JSON${line}; comments and trailing commas are not allowed`;
    expect(problemsOf({ config: text })).toEqual([problem]);
  });

  it.each([
    ['[]', 'an array'],
    ['null', 'null'],
    ['"hunter2"', 'a string'],
  ])('%s must be an object', (json, kind) => {
    expect(problemsOf({ config: json })).toEqual([`${CONFIG_PATH}: expected an object, got ${kind}`]);
  });
});

describe('an unknown key', () => {
  const helpHint = '; opencode-mcp help settings lists the keys';
  it.each([
    ['{"logLevl": "warn"}', 'logLevl: unknown key; did you mean logLevel?'],
    ['{"registry_dir": "/x"}', 'registry_dir: unknown key; did you mean registryDir?'],
    ['{"servers": []}', `servers: unknown key${helpHint}`],
    ['{"__proto__": {}}', `__proto__: unknown key${helpHint}`],
    [
      '{"instances": [{"name": "a", "url": "http://a", "pasword": "hunter2"}]}',
      'instances[0].pasword: unknown key; did you mean password?',
    ],
    [
      '{"credentials": [{"name": "a", "hosts": "a", "password": "p"}]}',
      'credentials[0].hosts: unknown key; did you mean host?',
    ],
  ])('%s', (config, expected) => {
    expect(problemsOf({ config })).toEqual([`${CONFIG_PATH}: ${expected}`]);
  });
});

describe('the mode of a file', () => {
  const password = 'hunter2';
  const readable = 'holds a secret, and other users can read it';
  const writable = 'other users can change it, and it can name commands to run';
  it.each<[mode: string, config: object, warning: string | undefined]>([
    ['0600', { password }, undefined],
    ['0400', { password }, undefined],
    ['0640', { password }, readable],
    ['0604', { password }, readable],
    ['0644', { instances: [{ name: 'a', url: 'https://a', password }] }, readable],
    ['0644', { instances: [{ name: 'a', url: 'https://a', headers: { 'X-Token': password } }] }, readable],
    ['0644', { credentials: [{ name: 'a', password }] }, readable],
    ['0644', { password: { file: 'pw' } }, undefined],
    ['0662', {}, writable],
  ])('%s, %j: %s', (mode, config, warning) => {
    expect(load({ mode: Number.parseInt(mode, 8), config }).warnings).toEqual(
      warning === undefined ? [] : [`${CONFIG_PATH}: ${warning} (mode ${mode}); run: chmod 600 ${CONFIG_PATH}`],
    );
  });
});

describe('secrets', () => {
  const folder = '/home/ada/.config/opencode-mcp';
  it.each([
    ['a value', 'p', { kind: 'value', value: 'p' }],
    ['a variable, read now', { env: 'PW' }, { kind: 'value', value: 'from env' }],
    ['a file beside the config file', { file: 'keys/pw' }, { kind: 'file', path: `${folder}/keys/pw` }],
    ['a file in the home folder', { file: '~/pw' }, { kind: 'file', path: '/home/ada/pw' }],
    ['a file elsewhere', { file: '/run/secrets/pw' }, { kind: 'file', path: '/run/secrets/pw' }],
    ['a command', { command: ['pass', 'show', 'oc'] }, { kind: 'command', argv: ['pass', 'show', 'oc'] }],
    // The next three are no errors: they lock the instances that need them.
    ['a variable that is not set', { env: 'NOWHERE' }, { kind: 'unset', variable: 'NOWHERE' }],
    ['a variable that is empty', { env: 'EMPTY' }, { kind: 'unset', variable: 'EMPTY' }],
    ['a name that every object has', { env: 'constructor' }, { kind: 'unset', variable: 'constructor' }],
  ])('%s, for every password', (_, secret, expected) => {
    const { settings } = load({
      env: { PW: 'from env', EMPTY: '' },
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

  const expectedSecret = 'expected a string, {"env": NAME}, {"file": PATH} or {"command": [PROGRAM, ARGUMENT, …]}';
  const expectedProgram = 'expected a program and its arguments after "command", as [PROGRAM, ARGUMENT, …]';
  it.each([
    [{ env: '$hunter2' }, 'expected the name of an environment variable after "env", without $'],
    ['', 'expected a secret, got an empty string'],
    [{ file: '' }, 'expected a path after "file"'],
    [{ file: 'a\0' }, 'expected a path after "file"'],
    [{ command: [] }, expectedProgram],
    [{ command: ['a', '\0'] }, expectedProgram],
    [{ command: 'pass show hunter2' }, `${expectedSecret}, got an object`],
    [12345, `${expectedSecret}, got a number`],
    [{ env: 'PW', file: 'hunter2' }, `${expectedSecret}, got an object`],
    [{}, `${expectedSecret}, got an object`],
    [null, `${expectedSecret}, got null`],
    [undefined, `${expectedSecret}, got nothing`],
  ])('%j: %s', (password, expected) => {
    expect(problemsOf({ config: { credentials: [{ name: 'a', password }] } })).toEqual([
      `${CONFIG_PATH}: credentials[0].password: ${expected}`,
    ]);
  });
});

describe('credential rules', () => {
  it('keep their order and fields', () => {
    const rules = [
      { name: 'api-*', username: 'ada', password: 'p1' },
      { host: '*.ts.net', source: 'TAIL*', password: 'p2' },
      { source: 'mdns', name: 'living room', host: 'pi.local', password: 'p3' },
    ];
    expect(load({ config: { credentials: rules } }).settings.credentialRules).toEqual(
      rules.map(({ username, password, ...patterns }) => ({
        ...patterns,
        credential: { username, password: { kind: 'value', value: password } },
      })),
    );
  });

  const missingPattern =
    ': expected at least one of name, host and source; for a password that fits everywhere use the key "password"';
  const inexactMdns =
    ': a rule for mdns needs the exact name or host, without *: anyone on the LAN can advertise anything';
  const bounds = 'expected 1 to 256 characters, none of them control or invisible';
  it.each([
    [{}, missingPattern],
    [
      { source: 'mdsn' },
      '.source: expected a pattern that fits one of local-relay, service, tailscale, mdns, static, got "mdsn"',
    ],
    [{ source: 'mdns' }, inexactMdns],
    [{ source: 'MDNS', name: 'a*' }, inexactMdns],
    [{ source: 'mdns', name: 'a', host: '*' }, inexactMdns],
    [{ host: '' }, `.host: ${bounds}, got ""`],
    [{ name: 'a\u200b' }, `.name: ${bounds}, got "a\\u{200b}"`],
    [{ name: 5 }, '.name: expected a string, got a number'],
    [
      { name: 'a', username: 'a:b' },
      '.username: expected a user name without a colon, control or invisible characters, got "a:b"',
    ],
  ])('%j is an error', (rule, expected) => {
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
    [{ approve: 'me' }, 'approve: expected one of ask, human, model, never, got a string'],
    [{ permission: 'bash' }, 'approve: expected one of ask, human, model, never, got nothing'],
    [{ tool: 'bash', approve: 'model' }, 'tool: unknown key; opencode-mcp help settings lists the keys'],
    [
      { pattern: '', approve: 'model' },
      'pattern: expected 1 to 256 characters, none of them control or invisible, got ""',
    ],
  ])('%j is an error', (rule, expected) => {
    expect(problemsOf({ config: { approvals: [rule] } })).toEqual([`${CONFIG_PATH}: approvals[0].${expected}`]);
  });
});

describe('readTextFile', () => {
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
