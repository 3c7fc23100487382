import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { messageOf } from '../../src/base/errors.ts';
import type { CredentialRef, SecretRef } from '../../src/config/file/secret-ref.ts';
import type { CredentialRule } from '../../src/config/settings.ts';
import { createCredentialResolver } from '../../src/credentials/resolver.ts';
import type { SecretCommands } from '../../src/credentials/secret-commands.ts';
import { ROUTES, type Candidate, type Endpoint } from '../../src/model/candidate.ts';
import { tempDir } from '../rig/temp.ts';

const never = new AbortController().signal;
const noCommands: SecretCommands = { run: () => Promise.reject(new Error('not expected')) };

function value(password: string, username?: string): CredentialRef {
  return { password: { kind: 'value', value: password }, ...(username !== undefined && { username }) };
}

interface CandidateFields extends Partial<Omit<Candidate, 'endpoint'>> {
  readonly endpoint?: Partial<Endpoint>;
}

function candidate({ endpoint, ...rest }: CandidateFields = {}): Candidate {
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

function resolve(fields: CandidateFields, { rules = [], fallback }: Setup, commands = noCommands) {
  const settings = { credentialRules: rules, defaultCredential: fallback };
  return createCredentialResolver(settings, { commands }).resolve(candidate(fields), never);
}

const fromConfiguration = (password: string, username = 'opencode') => ({
  username,
  password,
  from: 'the configuration',
});

describe('the order of credentials', () => {
  const rules = [
    { name: 'web', credential: value('other') },
    { name: 'a*', credential: value('rule') },
    { host: 'box', credential: value('later rule') },
  ];
  const fallback = value('default', 'ada');
  const own = value('own', 'eve');
  const missing: CredentialRef = { password: { kind: 'file', path: '/nonexistent/pw', optional: true } };

  it.each<[name: string, fields: CandidateFields, setup: Setup, expected: unknown]>([
    [
      "the candidate's own credential comes first",
      { credential: own },
      { rules, fallback },
      { username: 'eve', password: 'own', from: "the service's own file" },
    ],
    ['the first matching rule comes second', {}, { rules, fallback }, fromConfiguration('rule')],
    ['the default comes last', { claims: {} }, { rules, fallback }, fromConfiguration('default', 'ada')],
    ['nothing is used without a match and a default', { claims: {} }, { rules }, undefined],
    [
      'a rule replaces a missing optional credential',
      { credential: missing },
      { rules, fallback },
      fromConfiguration('rule'),
    ],
    [
      'the default replaces a missing optional credential',
      { credential: missing },
      { fallback },
      fromConfiguration('default', 'ada'),
    ],
    [
      'nothing replaces a missing optional credential without a rule and a default',
      { credential: missing },
      {},
      undefined,
    ],
  ])('%s', async (_, fields, setup, expected) => {
    expect(await resolve(fields, setup)).toEqual(expected);
  });

  it('an unreadable credential is an error, and no other replaces it', async () => {
    const unreadable: SecretRef = { kind: 'file', path: '/nonexistent/pw' };
    await expect(resolve({ credential: { password: unreadable } }, { rules, fallback })).rejects.toThrow(
      '/nonexistent/pw: no such file',
    );
  });

  it('the resolver reads only the credential that it uses', async () => {
    const commandsRun: string[] = [];
    const commands: SecretCommands = {
      run: (argv) => (commandsRun.push(argv.join(' ')), Promise.resolve('from command\n')),
    };
    const command = (name: string): CredentialRef => ({ password: { kind: 'command', argv: ['pass', name] } });
    const setup = {
      rules: ['web', 'api'].map((name) => ({ name, credential: command(name) })),
      fallback: command('default'),
    };
    expect(await resolve({}, setup, commands)).toEqual({
      username: 'opencode',
      password: 'from command',
      from: 'the output of the password command pass',
    });
    expect(commandsRun).toEqual(['pass api']);
  });
});

describe('the default credential', () => {
  const defaultFor = (fields: CandidateFields) => resolve(fields, { fallback: value('p') });

  it.each([
    ['loopback', true],
    ['tailnet', true],
    ['relay', true],
    ['url', false],
    ['lan', false],
  ] as const)('is used on the route %s: %s', async (route, gets) => {
    const found = await defaultFor({ source: 'static', endpoint: { route } });
    expect(found).toEqual(gets ? fromConfiguration('p') : undefined);
  });

  it('does not go to mdns candidates, whatever the route', async () => {
    for (const route of ROUTES) expect(await defaultFor({ source: 'mdns', endpoint: { route } })).toBeUndefined();
  });
});

it.each<[name: string, fields: CandidateFields]>([
  ['an untrusted candidate', { trust: { level: 'untrusted', reason: 'open to others' } }],
  ['a candidate with its own Authorization header', { endpoint: { headers: { authorization: 'Bearer x' } } }],
])('%s gets nothing: no own credential, no rule, no default', async (_, fields) => {
  const setup = { rules: [{ name: 'api', credential: value('rule') }], fallback: value('default') };
  expect(await resolve({ ...fields, credential: value('own') }, setup)).toBeUndefined();
});

describe('an endpoint found by mdns', () => {
  const fields: CandidateFields = { source: 'mdns', endpoint: { url: 'http://192.168.1.20:4096', route: 'lan' } };
  it.each([
    [{ name: 'api', source: 'mdns' }, true],
    [{ host: 'BOX', source: 'mDNS' }, true],
    [{ host: '192.168.1.20', source: 'mdns' }, true],
    [{ name: 'api', host: 'box', source: 'mdns' }, true],
    [{ name: 'api', host: 'other', source: 'mdns' }, false],
    [{ name: 'api' }, false],
    [{ host: 'box' }, false],
    [{ source: 'mdns' }, false],
    [{ name: 'api', source: 'mdns*' }, false],
    [{ name: 'api', source: '*' }, false],
    [{ name: 'ap*', source: 'mdns' }, false],
    [{ host: '*', source: 'mdns' }, false],
    [{ name: 'api', host: '192.168.*', source: 'mdns' }, false],
    [{ name: 'api', source: 'static' }, false],
    [{ name: 'web', source: 'mdns' }, false],
  ])('gets a password by the rule %j: %s', async (rule, gets) => {
    const found = await resolve(fields, { rules: [{ ...rule, credential: value('p') }], fallback: value('default') });
    expect(found?.password).toBe(gets ? 'p' : undefined);
  });

  it('uses the next rule if the first one is too wide', async () => {
    const rules = [
      { name: 'api', credential: value('wide') },
      { name: 'api', source: 'mdns', credential: value('meant') },
    ];
    expect((await resolve(fields, { rules }))?.password).toBe('meant');
  });

  it('does not get its own credential', async () => {
    expect(await resolve({ ...fields, credential: value('own') }, {})).toBeUndefined();
  });

  it('is treated the same if another source found it on the LAN route', async () => {
    const other: CandidateFields = { ...fields, source: 'other', credential: value('own') };
    expect(
      await resolve(other, { rules: [{ name: 'api', credential: value('p') }], fallback: value('default') }),
    ).toBeUndefined();
  });
});

describe('a rule', () => {
  const relay: CandidateFields = { endpoint: { url: 'http://127.0.0.1:20001', route: 'relay' } };
  const tailnet: CandidateFields = { endpoint: { url: 'http://box.tail1.ts.net:4096/x', route: 'tailnet' } };
  const ipv6: CandidateFields = { endpoint: { url: 'http://[fd7a::1]:4096', route: 'tailnet' } };
  const nonsense: CandidateFields = { endpoint: { url: 'nonsense' } };
  it.each<[name: string, rule: Omit<CredentialRule, 'credential'>, fields: CandidateFields, fits: boolean]>([
    ['fits by name, in any case', { name: 'API' }, {}, true],
    ['fits only whole names', { name: 'ap' }, {}, false],
    ['does not fit a candidate without a name', { name: '*' }, { claims: {} }, false],
    ['fits by host name', { host: 'b*' }, {}, true],
    ['fits by address', { host: '127.0.0.1' }, {}, true],
    ['fits by the name in the URL', { host: '*.ts.net' }, tailnet, true],
    ['fits by an IPv6 address', { host: 'fd7a::1' }, ipv6, true],
    ['fits a relayed machine by its name', { host: 'box' }, relay, true],
    ["does not take our end of a relay's tunnel for the machine", { host: '127.0.0.1' }, relay, false],
    ['fits by source', { source: 'local-*' }, {}, true],
    ['does not fit another source', { source: 'tailscale' }, {}, false],
    ['fits only if all its parts fit', { name: 'api', host: 'other' }, {}, false],
    ['fits nothing if it has no parts', {}, {}, false],
    ['survives an invalid URL', { host: 'box' }, nonsense, true],
  ])('%s', async (_, rule, fields, fits) => {
    const found = await resolve(fields, { rules: [{ ...rule, credential: value('p') }] });
    expect(found?.password).toBe(fits ? 'p' : undefined);
  });
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
  const withHeaders = (headers: Endpoint['headers'] & object, commands: SecretCommands): Promise<Endpoint> =>
    createCredentialResolver({ credentialRules: [] }, { commands }).withHeaders(
      { url: 'https://box.example', route: 'url', headers },
      never,
    );

  it('are read from files and commands like passwords', async () => {
    await using folder = tempDir();
    const path = join(folder.path, 'token');
    writeFileSync(path, `${'t'.repeat(8192 - 2)}\r\n`);
    const printing: SecretCommands = { run: (argv) => Promise.resolve(`${argv.join(' ')}\n`) };
    const { headers } = await withHeaders(
      {
        'X-Plain': 'plain',
        'X-File': { kind: 'file', path },
        'X-Command': { kind: 'command', argv: ['pass', 'show'] },
      },
      printing,
    );
    expect(headers).toEqual({ 'X-Plain': 'plain', 'X-File': 't'.repeat(8192 - 2), 'X-Command': 'pass show' });
  });

  const printing = (output: string): SecretCommands => ({ run: () => Promise.resolve(output) });
  const command: SecretRef = { kind: 'command', argv: ['pass'] };
  const unset: SecretRef = { kind: 'unset', variable: 'CF' };
  it.each<readonly [string, SecretRef, SecretCommands, string]>([
    ['an unreadable value', unset, noCommands, 'the environment variable CF is not set; set it and start'],
    ['an empty value', command, printing('\n'), 'the output of the password command pass is empty'],
    ['a value of two lines', command, printing('hunter2\nhunter2'), 'expected a header value without line breaks'],
    [
      'a variable with two lines',
      { kind: 'value', value: 'hunter2\nb' },
      noCommands,
      'expected a header value without',
    ],
    ['a character that no header may contain', command, printing('hunter2→'), 'expected a header value without'],
    ['a value that is too long', command, printing('h'.repeat(8193)), 'expected at most 8192 characters, got 8193'],
  ])(
    '%s is reported with the name of the header and the reason, without the value',
    async (_, ref, commands, reason) => {
      const sending = withHeaders({ 'X-Plain': 'p', 'X-Token': ref }, commands);
      const message = await sending.then(String, messageOf);
      expect(message).toMatch(new RegExp(`^header X-Token: ${reason}`));
      expect(message).not.toContain('hunter2');
    },
  );
});
