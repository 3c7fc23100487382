import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { CredentialRef, SecretRef } from '../../src/config/file/secret-ref.ts';
import type { CredentialRule } from '../../src/config/settings.ts';
import { createCredentialResolver } from '../../src/credentials/resolver.ts';
import type { SecretCommands } from '../../src/credentials/secret-commands.ts';
import { ROUTES, type Candidate, type Endpoint, type Trust } from '../../src/model/candidate.ts';
const never = new AbortController().signal;
const noCommands: SecretCommands = { run: () => Promise.reject(new Error('not expected')) };

function value(password: string, username?: string): CredentialRef {
  return { password: { kind: 'value', value: password }, ...(username !== undefined && { username }) };
}

interface Seen extends Partial<Omit<Candidate, 'endpoint'>> {
  readonly endpoint?: Partial<Endpoint>;
}

function candidate({ endpoint, ...rest }: Seen = {}): Candidate {
  return {
    source: 'local-relay',
    key: 'k',
    claims: { name: 'api', hostname: 'box' },
    trust: { level: 'trusted' },
    ...rest,
    endpoint: { url: 'http://127.0.0.1:4096', route: 'loopback', ...endpoint },
  };
}

interface Setup {
  readonly rules?: readonly CredentialRule[];
  readonly fallback?: CredentialRef;
}

function resolve(seen: Seen, { rules = [], fallback }: Setup, commands = noCommands) {
  const resolver = createCredentialResolver(
    { credentialRules: rules, ...(fallback && { defaultCredential: fallback }) },
    { commands },
  );
  return resolver.resolve(candidate(seen), never);
}

describe('order', () => {
  const rules = [
    { name: 'web', credential: value('other') },
    { name: 'a*', credential: value('rule') },
    { host: 'box', credential: value('later rule') },
  ];
  const fallback = value('default', 'ada');

  it("the candidate's own credential comes first", async () => {
    expect(await resolve({ credential: value('own', 'eve') }, { rules, fallback })).toEqual({
      username: 'eve',
      password: 'own',
      from: "the service's own file",
    });
  });

  it('then the first matching rule', async () => {
    expect(await resolve({}, { rules, fallback })).toEqual({
      username: 'opencode',
      password: 'rule',
      from: 'the configuration',
    });
  });

  it('then the default', async () => {
    expect(await resolve({ claims: {} }, { rules, fallback })).toEqual({
      username: 'ada',
      password: 'default',
      from: 'the configuration',
    });
  });

  it('then nothing', async () => {
    expect(await resolve({ claims: {} }, { rules })).toBeUndefined();
  });

  const missing: CredentialRef = { password: { kind: 'file', path: '/nonexistent/pw', optional: true } };
  it('a missing optional one falls through to the next', async () => {
    expect(await resolve({ credential: missing }, { rules, fallback })).toEqual({
      username: 'opencode',
      password: 'rule',
      from: 'the configuration',
    });
    expect(await resolve({ credential: missing }, { fallback })).toEqual({
      username: 'ada',
      password: 'default',
      from: 'the configuration',
    });
    expect(await resolve({ credential: missing }, {})).toBeUndefined();
  });

  it('an unreadable one does not', async () => {
    const unreadable: SecretRef = { kind: 'file', path: '/nonexistent/pw' };
    await expect(resolve({ credential: { password: unreadable } }, { rules, fallback })).rejects.toThrow(
      '/nonexistent/pw: no such file',
    );
  });

  it('reads only the one it uses', async () => {
    const asked: string[] = [];
    const commands: SecretCommands = { run: (argv) => (asked.push(argv.join(' ')), Promise.resolve('from command\n')) };
    const command = (name: string): CredentialRef => ({ password: { kind: 'command', argv: ['pass', name] } });
    const setup = {
      rules: [
        { name: 'web', credential: command('web') },
        { name: 'api', credential: command('api') },
      ],
      fallback: command('default'),
    };
    expect(await resolve({}, setup, commands)).toEqual({
      username: 'opencode',
      password: 'from command',
      from: 'the output of the password command pass',
    });
    expect(asked).toEqual(['pass api']);
  });
});

describe('the default credential', () => {
  it.each([
    { route: 'loopback', gets: true },
    { route: 'tailnet', gets: true },
    { route: 'relay', gets: true },
    { route: 'url', gets: false },
    { route: 'lan', gets: false },
  ] as const)('by $route: $gets', async ({ route, gets }) => {
    const found = await resolve({ source: 'static', endpoint: { route } }, { fallback: value('p') });
    expect(found).toEqual(gets ? { username: 'opencode', password: 'p', from: 'the configuration' } : undefined);
  });

  it('does not go to mdns candidates, whatever the route', async () => {
    for (const route of ROUTES)
      expect(await resolve({ source: 'mdns', endpoint: { route } }, { fallback: value('p') })).toBeUndefined();
  });
});

describe('an untrusted candidate', () => {
  const untrusted: Trust = { level: 'untrusted', reason: 'open to others' };
  it('gets nothing: no own credential, no rule, no default', async () => {
    const setup = { rules: [{ name: 'api', credential: value('rule') }], fallback: value('default') };
    expect(await resolve({ trust: untrusted, credential: value('own') }, setup)).toBeUndefined();
  });
});

describe('a candidate with its own Authorization header', () => {
  it('gets no credential', async () => {
    const endpoint = { route: 'url', headers: { authorization: 'Bearer x' } } as const;
    expect(
      await resolve({ source: 'static', endpoint }, { rules: [{ name: 'api', credential: value('rule') }] }),
    ).toBeUndefined();
  });
});

describe('an endpoint found by mdns', () => {
  const seen: Seen = { source: 'mdns', endpoint: { url: 'http://192.168.1.20:4096', route: 'lan' } };
  it.each([
    { name: 'name and source', rule: { name: 'api', source: 'mdns' }, gets: true },
    { name: 'host name and source', rule: { host: 'BOX', source: 'mDNS' }, gets: true },
    { name: 'address and source', rule: { host: '192.168.1.20', source: 'mdns' }, gets: true },
    { name: 'all three', rule: { name: 'api', host: 'box', source: 'mdns' }, gets: true },
    { name: 'all three, the host another', rule: { name: 'api', host: 'other', source: 'mdns' }, gets: false },
    { name: 'name alone', rule: { name: 'api' }, gets: false },
    { name: 'host alone', rule: { host: 'box' }, gets: false },
    { name: 'source alone', rule: { source: 'mdns' }, gets: false },
    { name: 'a wildcard in the source', rule: { name: 'api', source: 'mdns*' }, gets: false },
    { name: 'any source', rule: { name: 'api', source: '*' }, gets: false },
    { name: 'a wildcard in the name', rule: { name: 'ap*', source: 'mdns' }, gets: false },
    { name: 'a wildcard in the host', rule: { host: '*', source: 'mdns' }, gets: false },
    {
      name: 'a wildcard in the host beside an exact name',
      rule: { name: 'api', host: '192.168.*', source: 'mdns' },
      gets: false,
    },
    { name: 'another source', rule: { name: 'api', source: 'static' }, gets: false },
    { name: 'another name', rule: { name: 'web', source: 'mdns' }, gets: false },
  ])('gets a password by a rule with $name: $gets', async ({ rule, gets }) => {
    const found = await resolve(seen, { rules: [{ ...rule, credential: value('p') }], fallback: value('default') });
    expect(found?.password).toBe(gets ? 'p' : undefined);
  });

  it('uses the next rule if the first one is too wide', async () => {
    const rules = [
      { name: 'api', credential: value('wide') },
      { name: 'api', source: 'mdns', credential: value('meant') },
    ];
    expect((await resolve(seen, { rules }))?.password).toBe('meant');
  });

  it('does not get its own credential', async () => {
    expect(await resolve({ ...seen, credential: value('own') }, {})).toBeUndefined();
  });

  it('from another source but with the LAN route is treated the same', async () => {
    const other: Seen = { ...seen, source: 'other', credential: value('own') };
    expect(
      await resolve(other, { rules: [{ name: 'api', credential: value('p') }], fallback: value('default') }),
    ).toBeUndefined();
  });
});

describe('a rule', () => {
  const relay: Partial<Endpoint> = { url: 'http://127.0.0.1:20001', route: 'relay' };
  const tailnet: Partial<Endpoint> = { url: 'http://box.tail1.ts.net:4096/x', route: 'tailnet' };
  it.each([
    { name: 'fits by name, in any case', rule: { name: 'API' }, seen: {}, fits: true },
    { name: 'fits only whole names', rule: { name: 'ap' }, seen: {}, fits: false },
    { name: 'needs a name to fit one', rule: { name: '*' }, seen: { claims: {} }, fits: false },
    { name: 'fits by host name', rule: { host: 'b*' }, seen: {}, fits: true },
    { name: 'fits by address', rule: { host: '127.0.0.1' }, seen: {}, fits: true },
    { name: 'fits by the name in the URL', rule: { host: '*.ts.net' }, seen: { endpoint: tailnet }, fits: true },
    {
      name: 'fits by an IPv6 address',
      rule: { host: 'fd7a::1' },
      seen: { endpoint: { url: 'http://[fd7a::1]:4096', route: 'tailnet' } },
      fits: true,
    },
    { name: 'fits a relayed machine by its name', rule: { host: 'box' }, seen: { endpoint: relay }, fits: true },
    {
      name: "does not take our end of a relay's tunnel for the machine",
      rule: { host: '127.0.0.1' },
      seen: { endpoint: relay },
      fits: false,
    },
    { name: 'fits by source', rule: { source: 'local-*' }, seen: {}, fits: true },
    { name: 'does not fit another source', rule: { source: 'tailscale' }, seen: {}, fits: false },
    { name: 'needs all its parts', rule: { name: 'api', host: 'other' }, seen: {}, fits: false },
    { name: 'without parts fits nothing', rule: {}, seen: {}, fits: false },
    { name: 'survives a URL that is none', rule: { host: 'box' }, seen: { endpoint: { url: 'nonsense' } }, fits: true },
  ] satisfies readonly { name: string; rule: Omit<CredentialRule, 'credential'>; seen: Seen; fits: boolean }[])(
    '$name',
    async ({ rule, seen, fits }) => {
      expect((await resolve(seen, { rules: [{ ...rule, credential: value('p') }] }))?.password).toBe(
        fits ? 'p' : undefined,
      );
    },
  );
});

describe('any advertised claims', () => {
  it('get a password only by a rule that names mdns and the exact name or host', async () => {
    const word = fc.constantFrom('api', 'box', 'mdns', '*', 'API', '192.168.1.20', 'm*', 'a*i', 'local-relay');
    const rule = fc.record({ name: word, host: word, source: word }, { requiredKeys: [] });
    await fc.assert(
      fc.asyncProperty(
        word,
        word,
        fc.constantFrom(...ROUTES),
        fc.array(rule, { maxLength: 4 }),
        async (name, hostname, route, parts) => {
          const rules = parts.map((part) => ({ ...part, credential: value('p') }));
          const found = await resolve(
            {
              source: 'mdns',
              claims: { name, hostname },
              endpoint: { route, url: 'http://192.168.1.20:1' },
              credential: value('own'),
            },
            { rules, fallback: value('d') },
          );
          const meant = parts.some(
            (part) =>
              part.source === 'mdns' &&
              (part.name ?? part.host) !== undefined &&
              ![part.name, part.host].some((text) => text?.includes('*')),
          );
          expect(meant ? [undefined, 'p'] : [undefined]).toContain(found?.password);
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe("an endpoint's headers", () => {
  const withHeaders = (headers: Endpoint['headers'], commands = noCommands): Promise<Endpoint> =>
    createCredentialResolver({ credentialRules: [] }, { commands }).withHeaders(
      { url: 'https://box.example', route: 'url', ...(headers && { headers }) },
      never,
    );

  it('are read from files and commands like passwords', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'opencode-mcp-headers-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, 'token'), `${'t'.repeat(8192 - 2)}\r\n`);
    const printing: SecretCommands = { run: (argv) => Promise.resolve(`${argv.join(' ')}\n`) };
    const { headers } = await withHeaders(
      {
        'X-Plain': 'plain',
        'X-File': { kind: 'file', path: join(folder, 'token') },
        'X-Command': { kind: 'command', argv: ['pass', 'show'] },
      },
      printing,
    );
    expect(headers).toEqual({ 'X-Plain': 'plain', 'X-File': 't'.repeat(8192 - 2), 'X-Command': 'pass show' });
  });

  const failing: SecretCommands = { run: () => Promise.reject(new Error('password command pass ended with code 1')) };
  const printing = (output: string): SecretCommands => ({ run: () => Promise.resolve(output) });
  const command: SecretRef = { kind: 'command', argv: ['pass'] };
  it.each<readonly [string, SecretRef, SecretCommands, string]>([
    [
      'a variable that is not set',
      { kind: 'unset', variable: 'CF' },
      noCommands,
      'the environment variable CF is not set; set it and start this again',
    ],
    [
      'a file that is not there',
      { kind: 'file', path: '/nowhere/cf' },
      noCommands,
      'cannot read the password file /nowhere/cf: no such file; create it with the password in it',
    ],
    [
      'what is no file',
      { kind: 'file', path: '/' },
      noCommands,
      'will not use / for a password: it is not a regular file; put the password into one',
    ],
    ['a command that fails', command, failing, 'password command pass ended with code 1'],
    ['one that prints nothing', command, printing('\n'), 'the output of the password command pass is empty'],
    ['two lines', command, printing('hunter2\nhunter2'), 'expected a header value without line breaks'],
    ['a variable with two lines', { kind: 'value', value: 'a\nb' }, noCommands, 'expected a header value without'],
    ['what no header carries', command, printing('hunter2→'), 'expected a header value without'],
    ['too much', command, printing('h'.repeat(8193)), 'expected at most 8192 characters, got 8193'],
  ])(
    'that cannot be sent are named, with the reason and nothing of the value: %s',
    async (_, ref, commands, reason) => {
      const error = await withHeaders({ 'X-Plain': 'p', 'X-Token': ref }, commands).then(
        () => undefined,
        (thrown: unknown) => thrown as Error,
      );
      expect(error?.message.startsWith(`header X-Token: ${reason}`)).toBe(true);
      expect(error?.message).not.toContain('hunter2');
    },
  );
});
