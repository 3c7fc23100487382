import { describe, expect, it } from 'vitest';
import { CONFIG_PATH, load, problemsOf } from './load-case.ts';

function urlProblems(url: string): string[] {
  return problemsOf({ config: { instances: [{ name: 'a', url }] } });
}

function headerProblems(headers: unknown, more: Record<string, unknown> = {}): string[] {
  return problemsOf({ config: { instances: [{ name: 'a', url: 'https://a', headers, ...more }] } });
}

describe("an instance's URL", () => {
  it.each([
    { url: 'http://127.0.0.1:4096', expected: 'http://127.0.0.1:4096' },
    { url: 'https://oc.example.com/', expected: 'https://oc.example.com' },
    { url: 'https://oc.example.com/team/one//', expected: 'https://oc.example.com/team/one' },
    { url: 'HTTPS://OC.Example.com:443/Team', expected: 'https://oc.example.com/Team' },
    { url: 'http://[::1]:4096', expected: 'http://[::1]:4096' },
  ])('$url becomes $expected', ({ url, expected }) => {
    expect(load({ config: { instances: [{ name: 'a', url }] } }).settings.instances).toEqual([
      { name: 'a', url: expected, headers: {} },
    ]);
  });

  const scheme = 'expected an http:// or https:// URL';
  const query = 'expected a URL without query and fragment';
  const userInfo = 'expected a URL without user name and password; use the keys "username" and "password"';
  it.each([
    { name: 'another scheme', url: 'ftp://a/b', expected: scheme, shown: 'ftp://a/b' },
    { name: 'no scheme', url: 'a.example:4096', expected: scheme, shown: 'a.example:4096' },
    { name: 'no slashes', url: 'http:a.example', expected: scheme, shown: 'http:a.example' },
    { name: 'white space that a parser would drop', url: 'http://a\nb', expected: scheme, shown: 'http://a\\nb' },
    { name: 'backslashes', url: 'http://a\\b', expected: scheme, shown: 'http://a\\\\b' },
    { name: 'no host', url: 'http://', expected: scheme, shown: 'http://' },
    { name: 'a port out of range', url: 'http://a:99999', expected: scheme, shown: 'http://a:99999' },
    { name: 'a query', url: 'http://a/?token=hunter2', expected: query, shown: 'http://a/?…' },
    { name: 'an empty query', url: 'http://a/?', expected: query, shown: 'http://a/?…' },
    { name: 'a fragment', url: 'http://a/#hunter2', expected: query, shown: 'http://a/?…' },
    { name: 'user info', url: 'http://ada:hunter2@a', expected: userInfo, shown: 'http://…@a' },
    { name: 'user info that is not escaped', url: 'http://ada:hun@ter2@a', expected: userInfo, shown: 'http://…@a' },
    { name: 'user info with a question mark', url: 'http://ada:hunter?2@a', expected: userInfo, shown: 'http://…@a' },
    {
      name: 'user info in a URL that is broken elsewhere too',
      url: 'http://ada:hunter2@a:99999/',
      expected: userInfo,
      shown: 'http://…@a:99999/',
    },
    { name: 'user info without a scheme', url: 'ada:hunter2@a', expected: scheme, shown: '…@a' },
  ])('$name is refused', ({ url, expected, shown }) => {
    expect(urlProblems(url)).toEqual([`${CONFIG_PATH}: instances[0].url: ${expected}; got "${shown}"`]);
  });

  it.each([1, 22, 6000, 6667, 10080])('port %i, which fetch blocks, is refused with the reason', (port) => {
    expect(urlProblems(`http://127.0.0.1:${port}`)[0]).toContain(`port ${port} is on the web's list of blocked ports`);
  });

  it.each([
    { name: 'a password over http', instance: { url: 'http://10.0.0.7', password: 'hunter2' }, what: 'a password' },
    {
      name: 'a header over http',
      instance: { url: 'http://oc.example', headers: { 'X-A': 'hunter2' } },
      what: 'headers',
    },
    {
      name: 'a name that only begins like ours',
      instance: { url: 'http://127.0.0.1.example', password: 'hunter2' },
      what: 'a password',
    },
  ])('warns of $name to another machine', ({ instance, what }) => {
    expect(load({ config: { instances: [{ name: 'a', ...instance }] } }).warnings).toEqual([
      `${CONFIG_PATH}: instances[0].url: sends ${what} over plain http to another machine; use https unless the network between is encrypted`,
    ]);
  });

  it.each([
    { name: 'https', instance: { url: 'https://oc.example', password: 'hunter2' } },
    { name: 'nothing to overhear', instance: { url: 'http://oc.example' } },
    { name: 'localhost', instance: { url: 'http://localhost:4096', password: 'hunter2' } },
    { name: 'a name under localhost', instance: { url: 'http://oc.localhost:4096', password: 'hunter2' } },
    { name: 'an IPv4 loopback address', instance: { url: 'http://127.8.0.1:4096', password: 'hunter2' } },
    { name: 'the IPv6 loopback address', instance: { url: 'http://[::1]:4096', password: 'hunter2' } },
  ])('$name needs no warning', ({ instance }) => {
    expect(load({ config: { instances: [{ name: 'a', ...instance }] } }).warnings).toEqual([]);
  });
});

describe("an instance's name", () => {
  const names = (...list: unknown[]): string[] =>
    problemsOf({ config: { instances: list.map((name) => ({ name, url: 'http://a' })) } });
  const bounds = 'expected 1 to 64 characters, no control or invisible ones, no leading or trailing spaces';
  it.each([
    { name: '', shown: '""' },
    { name: 'x'.repeat(65), shown: `"${'x'.repeat(65)}"` },
    { name: 'a\nb', shown: '"a\\nb"' },
    { name: 'a\u202eb', shown: '"a\\u{202e}b"' },
    { name: ' a', shown: '" a"' },
  ])('$shown is refused', ({ name, shown }) => {
    expect(names(name)).toEqual([`${CONFIG_PATH}: instances[0].name: ${bounds}, got ${shown}`]);
  });

  it('must be unique', () => {
    expect(names('a', 'b', 'a')).toEqual([
      `${CONFIG_PATH}: instances[2].name: expected a unique name, got "a" a second time`,
    ]);
  });

  it('may be 64 characters of any script', () => {
    expect(names('ž'.repeat(64), 'living room')).toEqual([]);
  });

  it('is required', () => {
    expect(problemsOf({ config: { instances: [{ url: 'http://a' }] } })).toEqual([
      `${CONFIG_PATH}: instances[0].name: expected a string, got nothing`,
    ]);
  });
});

describe("an instance's headers", () => {
  it('are read now from the config file and the environment, and before each request from files and commands', () => {
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
    { name: 'Host', reason: 'it follows from the URL' },
    ...['content-length', 'Connection', 'transfer-encoding', 'keep-alive', 'upgrade', 'expect'].map((name) => ({
      name,
      reason: 'the HTTP client sets it',
    })),
    ...['origin', 'Referer'].map((name) => ({ name, reason: 'it would make a request look like one of a web page' })),
    { name: 'X-OpenCode-Directory', reason: 'it controls opencode' },
  ])('$name cannot be set', ({ name, reason }) => {
    expect(headerProblems({ [name]: 'x' })).toEqual([
      `${CONFIG_PATH}: instances[0].headers.${name}: this header cannot be set: ${reason}`,
    ]);
  });

  it('Authorization and a password exclude each other', () => {
    expect(headerProblems({ Authorization: 'Bearer hunter2' })).toEqual([]);
    expect(headerProblems({ Authorization: 'Bearer hunter2' }, { password: 'hunter2' })).toEqual([
      `${CONFIG_PATH}: instances[0].headers.Authorization: expected either this header or a password: both make the Authorization header`,
    ]);
  });

  const tokens = "expected a header name: letters, digits and !#$%&'*+.^_`|~- only";
  const latin = 'expected a header value without line breaks, control characters or characters beyond Latin-1';
  it.each([
    { name: 'a space in the name', headers: { 'X A': 'x' }, expected: `.X: ${tokens}` },
    { name: 'a whole header as the name', headers: { 'X-Token: hunter2': 'x' }, expected: `.X-Token: ${tokens}` },
    {
      name: 'a whole header as the name, without a value',
      headers: { 'X-Token: hunter2': 5 },
      expected:
        '.X-Token: expected a string, {"env": NAME}, {"file": PATH} or {"command": [PROGRAM, ARGUMENT, …]}, got a number',
    },
    { name: 'an empty name', headers: { '': 'x' }, expected: `.: ${tokens}` },
    { name: 'the same name twice', headers: { 'X-A': '1', 'x-a': '2' }, expected: '.x-a: the header is given twice' },
    { name: 'a line break', headers: { 'X-A': 'hunter2\r\nX-B: c' }, expected: `.X-A: ${latin}` },
    { name: 'a NUL', headers: { 'X-A': 'hunter2\0' }, expected: `.X-A: ${latin}` },
    { name: 'a character that no header carries', headers: { 'X-A': 'hunter2→' }, expected: `.X-A: ${latin}` },
    {
      name: 'too much',
      headers: { 'X-A': 'h'.repeat(8193) },
      expected: '.X-A: expected at most 8192 characters, got 8193',
    },
    { name: 'an empty value', headers: { 'X-A': '' }, expected: '.X-A: expected a secret, got an empty string' },
    {
      name: 'a list',
      headers: ['hunter2'],
      expected: ': expected an object of header names and secrets, got an array',
    },
  ])('$name is refused', ({ headers, expected }) => {
    const config = { instances: [{ name: 'a', url: 'https://a', headers }] };
    expect(problemsOf({ config })).toEqual([`${CONFIG_PATH}: instances[0].headers${expected}`]);
  });
});

describe("an instance's user name", () => {
  it('needs a password beside it', () => {
    expect(headerProblems({}, { username: 'ada' })).toEqual([
      `${CONFIG_PATH}: instances[0].username: expected a password beside it`,
    ]);
  });
});
