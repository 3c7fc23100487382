import { describe, expect, it } from 'vitest';
import { CONFIG_PATH, load, problemsOf } from './load-case.ts';

/** The problems of one instance, without the prefix that they share. */
function problems(instance: object): string[] {
  return problemsOf({ config: { instances: [{ name: 'a', url: 'https://a', ...instance }] } }).map((line) =>
    line.replace(`${CONFIG_PATH}: instances[0]`, ''),
  );
}

describe("an instance's URL", () => {
  it.each([
    ['http://127.0.0.1:4096', 'http://127.0.0.1:4096'],
    ['https://oc.example.com/', 'https://oc.example.com'],
    ['https://oc.example.com/team/one//', 'https://oc.example.com/team/one'],
    ['HTTPS://OC.Example.com:443/Team', 'https://oc.example.com/Team'],
    ['http://[::1]:4096', 'http://[::1]:4096'],
  ])('%s becomes %s', (url, expected) => {
    expect(load({ config: { instances: [{ name: 'a', url }] } }).settings.instances).toEqual([
      { name: 'a', url: expected, headers: {} },
    ]);
  });

  const scheme = 'expected an http:// or https:// URL';
  const query = 'expected a URL without query and fragment';
  const userInfo = 'expected a URL without user name and password; use the keys "username" and "password"';
  it.each([
    ['ftp://a/b', scheme, 'ftp://a/b'],
    ['a.example:4096', scheme, 'a.example:4096'],
    ['http:a.example', scheme, 'http:a.example'],
    // White space, which a parser would drop.
    ['http://a\nb', scheme, 'http://a\\nb'],
    ['http://a\\b', scheme, 'http://a\\\\b'],
    ['http://', scheme, 'http://'],
    ['http://a:99999', scheme, 'http://a:99999'],
    ['http://a/?token=hunter2', query, 'http://a/?…'],
    ['http://a/?', query, 'http://a/?…'],
    ['http://a/#hunter2', query, 'http://a/?…'],
    ['http://ada:hunter2@a', userInfo, 'http://…@a'],
    ['http://ada:hun@ter2@a', userInfo, 'http://…@a'],
    ['http://ada:hunter?2@a', userInfo, 'http://…@a'],
    ['http://ada:hunter2@a:99999/', userInfo, 'http://…@a:99999/'],
    ['ada:hunter2@a', scheme, '…@a'],
  ])('%j is refused: %s', (url, expected, shown) => {
    expect(problems({ url })).toEqual([`.url: ${expected}; got "${shown}"`]);
  });

  it.each([1, 22, 6000, 6667, 10080])('port %i, which fetch blocks, is refused with the reason', (port) => {
    expect(problems({ url: `http://127.0.0.1:${port}` })[0]).toContain(
      `port ${port} is on the web's list of blocked ports`,
    );
  });

  it.each<[instance: object, exposed: string | undefined]>([
    [{ url: 'http://10.0.0.7', password: 'hunter2' }, 'a password'],
    [{ url: 'http://oc.example', headers: { 'X-A': 'hunter2' } }, 'headers'],
    [{ url: 'http://127.0.0.1.example', password: 'hunter2' }, 'a password'],
    [{ url: 'http://oc.example' }, undefined],
    [{ url: 'https://oc.example', password: 'hunter2' }, undefined],
    [{ url: 'http://localhost:4096', password: 'hunter2' }, undefined],
    [{ url: 'http://oc.localhost:4096', password: 'hunter2' }, undefined],
    [{ url: 'http://127.8.0.1:4096', password: 'hunter2' }, undefined],
    [{ url: 'http://[::1]:4096', password: 'hunter2' }, undefined],
  ])('the plain http warning for %j names %s', (instance, exposed) => {
    const warning = `${CONFIG_PATH}: instances[0].url: sends ${exposed} over plain http to another machine; use https unless the network between is encrypted`;
    expect(load({ config: { instances: [{ name: 'a', ...instance }] } }).warnings).toEqual(
      exposed === undefined ? [] : [warning],
    );
  });
});

describe("an instance's name", () => {
  it.each([
    ['', '""'],
    ['x'.repeat(65), `"${'x'.repeat(65)}"`],
    ['a\nb', '"a\\nb"'],
    ['a\u202eb', '"a\\u{202e}b"'],
    [' a', '" a"'],
  ])('%j is refused', (name, shown) => {
    const bounds = 'expected 1 to 64 characters, no control or invisible ones, no leading or trailing spaces';
    expect(problems({ name })).toEqual([`.name: ${bounds}, got ${shown}`]);
  });

  it('must be unique, and may have 64 characters of any script', () => {
    const instances = ['ž'.repeat(64), 'living room', 'living room'].map((name) => ({ name, url: 'http://a' }));
    expect(problemsOf({ config: { instances } })).toEqual([
      `${CONFIG_PATH}: instances[2].name: expected a unique name, got "living room" a second time`,
    ]);
  });

  it('is required', () => {
    expect(problems({ name: undefined })).toEqual(['.name: expected a string, got nothing']);
  });
});

describe("an instance's headers", () => {
  it('are read with the settings if in the config file or the environment, and before each request if from files or commands', () => {
    const headers = {
      'CF-Access-Client-Id': 'id.access',
      'CF-Access-Client-Secret': { env: 'CF' },
      'X-Tab': 'a\tb é',
      'X-Token': { file: 'token' },
      'X-Vault': { command: ['pass', 'show'] },
      'X-Unset': { env: 'NONE' },
      'X-Empty': { env: 'EMPTY' },
      'X-Two-Lines': { env: 'TWO' },
    };
    const { settings } = load({
      env: { CF: 'from env', EMPTY: '', TWO: 'one\ntwo' },
      config: { instances: [{ name: 'a', url: 'https://a', headers }] },
    });
    expect(settings.instances[0]?.headers).toEqual({
      'CF-Access-Client-Id': 'id.access',
      'CF-Access-Client-Secret': 'from env',
      'X-Tab': 'a\tb é',
      'X-Token': { kind: 'file', path: '/home/ada/.config/opencode-mcp/token' },
      'X-Vault': { kind: 'command', argv: ['pass', 'show'] },
      'X-Unset': { kind: 'unset', variable: 'NONE' },
      'X-Empty': { kind: 'unset', variable: 'EMPTY' },
      'X-Two-Lines': { kind: 'value', value: 'one\ntwo' },
    });
  });

  it.each([
    ['Host', 'it follows from the URL'],
    ...['content-length', 'Connection', 'transfer-encoding', 'keep-alive', 'upgrade', 'expect'].map(
      (name) => [name, 'the HTTP client sets it'] as const,
    ),
    ['origin', 'it would make a request look like one of a web page'],
    ['Referer', 'it would make a request look like one of a web page'],
    ['X-OpenCode-Directory', 'it controls opencode'],
  ] as const)('%s cannot be set: %s', (name, reason) => {
    expect(problems({ headers: { [name]: 'x' } })).toEqual([`.headers.${name}: this header cannot be set: ${reason}`]);
  });

  it('Authorization and a password exclude each other', () => {
    const headers = { Authorization: 'Bearer hunter2' };
    expect(problems({ headers })).toEqual([]);
    expect(problems({ headers, password: 'hunter2' })).toEqual([
      '.headers.Authorization: expected either this header or a password: both make the Authorization header',
    ]);
  });

  const tokens = "expected a header name: letters, digits and !#$%&'*+.^_`|~- only";
  const latin = 'expected a header value without line breaks, control characters or characters beyond Latin-1';
  const forms = 'expected a string, {"env": NAME}, {"file": PATH} or {"command": [PROGRAM, ARGUMENT, …]}';
  it.each([
    ['a space in the name', { 'X A': 'x' }, `.X: ${tokens}`],
    ['a whole header as the name', { 'X-Token: hunter2': 'x' }, `.X-Token: ${tokens}`],
    ['a whole header as the name, without a value', { 'X-Token: hunter2': 5 }, `.X-Token: ${forms}, got a number`],
    ['an empty name', { '': 'x' }, `.: ${tokens}`],
    ['the same name twice', { 'X-A': '1', 'x-a': '2' }, '.x-a: the header is given twice'],
    ['a line break', { 'X-A': 'hunter2\r\nX-B: c' }, `.X-A: ${latin}`],
    ['a NUL', { 'X-A': 'hunter2\0' }, `.X-A: ${latin}`],
    ['a character beyond Latin-1', { 'X-A': 'hunter2→' }, `.X-A: ${latin}`],
    [
      'a value of more than 8192 characters',
      { 'X-A': 'h'.repeat(8193) },
      '.X-A: expected at most 8192 characters, got 8193',
    ],
    ['an empty value', { 'X-A': '' }, '.X-A: expected a secret, got an empty string'],
    ['a list', ['hunter2'], ': expected an object of header names and secrets, got an array'],
  ])('%s is refused', (_, headers, expected) => {
    expect(problems({ headers })).toEqual([`.headers${expected}`]);
  });
});

it("an instance's user name needs a password beside it", () => {
  expect(problems({ username: 'ada' })).toEqual(['.username: expected a password beside it']);
});
