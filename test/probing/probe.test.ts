import { mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { OVERVIEW_PARTS, type SessionSummary } from '../../src/model/instance.ts';
import { probe } from '../../src/probing/probe.ts';
import type { Look, ProbeTask } from '../../src/probing/probe-task.ts';
import { createSameDirectory } from '../../src/probing/same-directory.ts';
import type { Candidate } from '../../src/model/candidate.ts';
import type { Credential } from '../../src/http/exchange.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../rig/fake-opencode.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { until } from '../rig/wait.ts';
import { candidate } from '../fleet/candidates.ts';

const closers: Array<() => Promise<unknown>> = [];

afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

async function fakeOpencode(options?: FakeOptions): Promise<FakeOpencode> {
  const fake = await startFakeOpencode(options);
  closers.push(fake.close);
  return fake;
}

async function server(handler: RequestListener): Promise<string> {
  const { url, close } = await listenHttp(handler);
  closers.push(close);
  return url;
}

interface Asked extends Look {
  readonly requests: number;
}

interface AskOptions extends Partial<
  Pick<ProbeTask, 'parts' | 'identity' | 'elsewhere' | 'credentialProblem' | 'known' | 'version'>
> {
  readonly credential?: Credential;
  /** Aborts the probe; the limit itself is the caller's. */
  readonly giveUp?: Promise<unknown>;
}

async function ask(target: string | Candidate, options: AskOptions = {}): Promise<Asked> {
  const asked = typeof target === 'string' ? candidate({ url: target }) : target;
  const { credential, giveUp, ...rest } = options;
  const controller = new AbortController();
  void giveUp?.then(() => controller.abort());
  let requests = 0;
  const look = await probe(
    {
      candidate: asked,
      connection: { endpoint: asked.endpoint, ...(credential === undefined ? {} : { credential }) },
      parts: [],
      limitMs: 60_000,
      signal: controller.signal,
      ...rest,
    },
    { clock: systemClock, sameDirectory: createSameDirectory(realpath), onRequest: () => (requests += 1) },
  );
  return { ...look, requests };
}

function reasonOf({ result }: Look): string {
  return 'reason' in result ? `${result.status}: ${result.reason}` : result.status;
}

/** Resolves when the fake has got a request for the route, so that a hang is cut without waiting. */
async function whenAsked(fake: FakeOpencode, route: Parameters<FakeOpencode['count']>[0]): Promise<void> {
  while (fake.count(route) === 0) await new Promise((resolve) => setImmediate(resolve));
}

describe('who is there', () => {
  test('a healthy server tells its version and its own directories', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/here' });
    const look = await ask(fake.url);
    expect(look.result).toEqual({
      status: 'healthy',
      version: '1.18.33',
      dialect: 'opencode-1',
      directory: '/home/user/here',
      worktree: '/home/user/here',
    });
    expect(look).toMatchObject({ timedOut: false, missing: [], requests: 2, latencyMs: expect.any(Number) });
  });

  test('a refused connection is told with its code', async () => {
    const fake = await fakeOpencode();
    await fake.close();
    const look = await ask(fake.url);
    expect(reasonOf(look)).toBe(`unhealthy: GET ${fake.url}/global/health: ECONNREFUSED`);
    expect(look).toMatchObject({ timedOut: false, requests: 1 });
  });

  test('a server that accepts and stays silent has timed out', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /global/health', { kind: 'hang' });
    const look = await ask(fake.url, { giveUp: whenAsked(fake, 'GET /global/health') });
    expect(reasonOf(look)).toBe(`unhealthy: ${fake.url} gave no answer within 60000 ms`);
    expect(look.timedOut).toBe(true);
  });

  test('one that stays silent after its first answer has timed out too', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'hang' });
    const look = await ask(fake.url, { giveUp: whenAsked(fake, 'GET /path') });
    expect(reasonOf(look)).toBe(`unhealthy: ${fake.url} stopped answering within 60000 ms`);
    expect(look.timedOut).toBe(true);
  });

  test('a slow drip ends with the limit', async () => {
    let dripped: () => void = () => {};
    const dripping = new Promise<void>((resolve) => (dripped = resolve));
    const url = await server((_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.write('{"healthy":', dripped);
    });
    const look = await ask(url, { giveUp: dripping });
    expect(look.timedOut).toBe(true);
  });

  test('401 is locked: it says whether a password was sent, or why none was', async () => {
    const fake = await fakeOpencode({ password: 'right' });
    expect(reasonOf(await ask(fake.url))).toBe(
      `locked: ${fake.url} answered HTTP 401: it asks for a password and none is known for it`,
    );
    expect(reasonOf(await ask(fake.url, { credential: { username: 'opencode', password: 'wrong' } }))).toBe(
      `locked: ${fake.url} answered HTTP 401: it refused the password that was sent`,
    );
    expect(reasonOf(await ask(fake.url, { credentialProblem: 'the vault is shut' }))).toBe(
      `locked: ${fake.url} answered HTTP 401: the vault is shut`,
    );
    expect((await ask(fake.url, { credential: { username: 'opencode', password: 'right' } })).result.status).toBe(
      'healthy',
    );
  });

  test('HTML with 200, as opencode gives to paths it does not know, is not an opencode', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /global/health', { kind: 'html' });
    expect(reasonOf(await ask(fake.url))).toContain('answered text/html instead of application/json');
    fake.override('GET /global/health', undefined);
    fake.override('GET /path', { kind: 'html' });
    expect(reasonOf(await ask(fake.url))).toContain('answered text/html instead of application/json');
  });

  test('a redirect is not followed', async () => {
    const elsewhere = await fakeOpencode();
    const fake = await fakeOpencode();
    fake.override('GET /global/health', { kind: 'redirect', to: `${elsewhere.url}/global/health` });
    expect(reasonOf(await ask(fake.url))).toContain('answered with a redirect');
    expect(elsewhere.count('GET /global/health')).toBe(0);
  });

  test('a body without end is cut off', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /global/health', { kind: 'endless' });
    expect(reasonOf(await ask(fake.url))).toContain('the body is larger than 262144 bytes');
  });

  test('10 MB of JSON are not read', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'answer', body: { directory: '/a', worktree: '/', x: 'x'.repeat(10_000_000) } });
    expect(reasonOf(await ask(fake.url))).toContain('the body is larger than 262144 bytes');
  });

  test('an error status is told', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /global/health', { kind: 'answer', status: 503, body: {} });
    expect(reasonOf(await ask(fake.url))).toBe(`unhealthy: GET ${fake.url}/global/health: HTTP 503`);
  });

  const refused = 'http_request_denied';
  test.each([
    ['503', 503, undefined, true],
    ['500', 500, undefined, true],
    ['429', 429, undefined, true],
    ['404', 404, undefined, undefined],
    ['404 of a node service', 404, refused, true],
    ['403 of a node service', 403, refused, true],
    ['200 of something else', 200, undefined, undefined],
  ])('%s may be over in a moment, or may not', async (_, status, error, notNow) => {
    const url = await server((_request, response) => {
      if (error !== undefined) response.setHeader('proxy-status', `opencode-mcp; error=${error}`);
      response.writeHead(status, { 'content-type': 'application/json' }).end('{}');
    });
    const look = await ask(url);
    expect([look.result.status, look.timedOut, look.notNow]).toEqual(['unhealthy', false, notNow]);
  });

  test('a server that says it is not healthy is not', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /global/health', { kind: 'answer', body: { healthy: false, version: '1.18.33' } });
    expect(reasonOf(await ask(fake.url))).toBe(`unhealthy: ${fake.url} says that it is not healthy`);
  });

  test.each([
    [{ ok: true }],
    [{ healthy: 'yes', version: '1.18.33' }],
    [{ healthy: true }],
    [{ healthy: true, version: 1 }],
    [{ healthy: true, version: '' }],
    [{ healthy: true, version: '1.18.33\u001b[31m' }],
    [{ healthy: true, version: '9'.repeat(65) }],
    [[]],
    ['null'],
  ])('the health answer %j is not of an opencode', async (body) => {
    const fake = await fakeOpencode();
    const headers = { 'content-type': 'application/json' };
    fake.override('GET /global/health', { kind: 'answer', headers, body });
    expect(reasonOf(await ask(fake.url))).toContain('not the answer of an opencode server');
  });

  test.each([
    ['relative', 'home/user'],
    ['empty', ''],
    ['too long', `/${'a'.repeat(4096)}`],
    ['with a NUL', '/home/\0user'],
    ['with half a character', '/home/\ud800user'],
    ['no string', 7],
    ['missing', undefined],
  ])('a directory that is %s is malformed', async (_, directory) => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'answer', body: { directory, worktree: '/' } });
    expect(reasonOf(await ask(fake.url))).toContain('not the answer of an opencode server');
    fake.override('GET /path', { kind: 'answer', body: { directory: '/', worktree: directory } });
    expect(reasonOf(await ask(fake.url))).toContain('not the answer of an opencode server');
  });

  test.each([
    ['/'],
    [`/${'a'.repeat(4095)}`],
    ['C:\\Users\\me'],
    ['D:/work'],
    ['\\\\host\\share'],
    ['/home/Ünïcödé 目录'],
    // Whatever shows it takes care of these.
    ['/home/\nuser\u001b[2J\u009b\u202e\u2028'],
  ])('a directory may be %j', async (directory) => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'answer', body: { directory, worktree: directory } });
    expect((await ask(fake.url)).result).toMatchObject({ status: 'healthy', directory });
  });

  test('a reason that a server can influence is one plain line', async () => {
    // Node's own server refuses to send such a header; a raw one does not.
    const raw = createServer();
    raw.on('connection', (socket) => {
      socket.on('error', () => {});
      socket.end('HTTP/1.1 200 OK\r\ncontent-type: text/\x9b2Jx\r\ncontent-length: 0\r\n\r\n', 'latin1');
    });
    await new Promise<void>((resolve) => raw.listen(0, '127.0.0.1', resolve));
    closers.push(() => new Promise((resolve) => raw.close(resolve)));
    const address = raw.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    const reason = reasonOf(await ask(`http://127.0.0.1:${address.port}`));
    expect(reason).toContain('instead of application/json');
    // eslint-disable-next-line no-control-regex -- what must not be there
    expect(reason).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  });
});

describe('versions', () => {
  test.each(['1.18.9', '1.17.99', '0.15.31', '1.18.9-beta.1', 'v1.2.3'])('%s is too old', async (version) => {
    const fake = await fakeOpencode({ version });
    expect(await ask(fake.url)).toMatchObject({
      result: { status: 'unsupported', version, reason: `opencode ${version} is too old; 1.18.10 or newer is needed` },
      requests: 1,
    });
  });

  test.each(['2.0.0', '2.0.0-alpha.1', '10.1.0'])('%s is of an unknown major version', async (version) => {
    const fake = await fakeOpencode({ version });
    expect((await ask(fake.url)).result).toMatchObject({ status: 'unsupported', version });
  });

  test.each([
    '1.18.10',
    '1.18.33',
    '1.19.0',
    '1.100.0',
    '1.18.10-rc1',
    '0.0.0-dev-202611',
    '0.0.0',
    'local',
    'main-abc',
  ])('%s is driven', async (version) => {
    const fake = await fakeOpencode({ version });
    expect((await ask(fake.url)).result).toMatchObject({ status: 'healthy', version });
  });
});

describe('what answers is OpenCode 2', () => {
  const tag = { status: 401, body: { _tag: 'UnauthorizedError' } };
  const json = (status: number, body: unknown) => ({ status, body });
  const html = { status: 200, body: '<html>' };
  const empty = { status: 404, body: '' };

  const info = (version: string, pid = 7) => json(200, { version, pid });
  const service = { pid: 7, version: '2.1.2' };

  test.each([
    ['2.0.18', html, { '/api/info': info('2.0.18') }, { version: '2.0.18', dialect: 'opencode-2', pid: 7 }],
    ['2.3.2', html, { '/api/info': info('2.3.2') }, { version: '2.3.2', dialect: 'opencode-2', pid: 7 }],
    [
      'of a channel',
      tag,
      { '/api/info': info('2.1.0-beta.3') },
      { version: '2.1.0-beta.3', dialect: 'opencode-2', pid: 7 },
    ],
    [
      'the preview',
      empty,
      { '/api/health': json(200, { healthy: true }) },
      { version: '2 (preview)', dialect: 'opencode-2-preview' },
    ],
  ] as const)('%s', async (_, health, routes, expected) => {
    const { result } = await ask(await routing({ '/global/health': health, ...routes }));
    expect(result).toEqual({ status: 'healthy', directory: '', worktree: '', ...expected });
  });

  test.each(['2.4.0', '3.0.1'])('%s, which is newer than what is known, is told as such', async (version) => {
    const { result } = await ask(await routing({ '/global/health': html, '/api/info': info(version) }));
    expect(result).toMatchObject({ status: 'unsupported', version });
    expect(result).toHaveProperty('reason', expect.stringContaining('2.0 to 2.3 are known; update opencode-mcp'));
  });

  test.each([
    ['2.x', html, { '/api/info': tag }],
    ['2.x that refuses all', tag, { '/api/info': tag }],
    ['the preview', empty, { '/api/health': tag }],
  ] as const)('%s without its password is locked, and said to be one', async (_, health, routes) => {
    const { result } = await ask(await routing({ '/global/health': health, ...routes }));
    expect(result).toMatchObject({ status: 'locked' });
    expect(result).toHaveProperty('reason', expect.stringContaining('this is an OpenCode 2'));
  });

  const ofFile = async (
    routes: Readonly<Record<string, Answer>>,
    claims: NonNullable<Candidate['claims']['service']>,
  ) => ask({ ...candidate({ url: await routing(routes) }), claims: { service: claims } });

  test('the person’s own service is asked who it is first, and nothing of OpenCode 1', async () => {
    const asked = await ofFile({ '/api/info': info('2.1.2') }, service);
    expect(asked).toMatchObject({ result: { status: 'healthy', version: '2.1.2' }, requests: 1 });
    const preview = { '/api/health': json(200, { healthy: true }) };
    expect(await ofFile(preview, { pid: 7, version: '1.18.18', isPreview: true })).toMatchObject({
      result: { status: 'healthy', version: '1.18.18', dialect: 'opencode-2-preview' },
      requests: 1,
    });
  });

  test.each([
    ['another process', info('2.1.2', 8)],
    ['another version', info('2.1.3')],
  ])('%s than the service file names is not taken for the service', async (_, answer) => {
    const { result } = await ofFile({ '/api/info': answer }, service);
    expect(result).toMatchObject({ status: 'unhealthy' });
    expect(result).toHaveProperty('reason', expect.stringContaining('the service file names process 7'));
  });

  test('of another machine’s service that machine has checked who it is', async () => {
    const { result } = await ofFile({ '/api/info': info('2.1.3', 8) }, { version: '2.1.2' });
    expect(result).toMatchObject({ status: 'healthy', version: '2.1.3', pid: 8 });
  });

  test('an early 2.0, without /api/info, is told as what it is', async () => {
    const early = await ask(await routing({ '/global/health': html, '/api/status': json(200, { version: '2.0.3' }) }));
    expect(early.result).toMatchObject({ status: 'unsupported', version: '2.0.3' });
    const { result } = await ofFile({}, { pid: 7, version: '2.0.3' });
    expect(result).toMatchObject({ status: 'unsupported', version: '2.0.3' });
  });

  test.each([
    ['OpenCode 1 behind a password', { status: 401, body: '' }, {}, 'locked'],
    ['a web page', html, {}, 'unhealthy'],
    ['another server', html, { '/api/info': json(200, { version: '7' }) }, 'unhealthy'],
    ['another server that has a version', html, { '/api/info': json(200, { version: '2.1.2' }) }, 'unhealthy'],
    ['another server with a status', html, { '/api/status': json(200, { version: '11.2.0' }) }, 'unhealthy'],
    ['another server with health of its own', html, { '/api/health': json(200, { healthy: true }) }, 'unhealthy'],
    ['nothing of use', empty, { '/api/info': json(200, null), '/api/health': json(200, null) }, 'unhealthy'],
  ] as const)('is not %s', async (_, health, routes, status) => {
    expect((await ask(await routing({ '/global/health': health, ...routes }))).result.status).toBe(status);
  });

  interface Answer {
    readonly status: number;
    readonly body: unknown;
  }

  /** As OpenCode 1 does, all other paths give a web page. */
  const routing = (routes: Readonly<Record<string, Answer>>): Promise<string> =>
    server((request, response) => {
      const { status, body } = routes[request.url ?? ''] ?? html;
      const type = typeof body === 'string' ? 'text/html' : 'application/json';
      response.writeHead(status, body === '' ? {} : { 'content-type': type });
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    });
});

describe('what opencode says of its own failure', () => {
  const inputs =
    '--- JSONC Input ---\n{ "apiKey": "sk-secret" \n--- Errors ---\nValueExpected at line 1, column 8\n   Line 1: { "apiKey"\n--- End ---';
  test.each([
    [
      { name: 'ConfigJsonError', data: { path: '/p/opencode.json', message: inputs } },
      '/p/opencode.json: ValueExpected at line 1, column 8',
    ],
    [
      {
        name: 'ConfigInvalidError',
        data: { path: '/p/opencode.json', issues: [{ path: ['model'], message: 'Expected string' }] },
      },
      '/p/opencode.json: model: Expected string',
    ],
    [{ name: 'UnknownError', data: { message: 'no such plugin' } }, 'no such plugin'],
    [{ name: 'ProviderInitError' }, 'ProviderInitError'],
  ])('%j is in the reason, and no key of its configuration', async (body, said) => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'answer', status: 400, body });
    const reason = reasonOf(await ask(fake.url));
    expect(reason).toMatch(/^unhealthy: GET .*\/path: HTTP 400; it says /);
    expect(reason).toContain(said);
    expect(reason).not.toContain('sk-secret');
  });

  test('is left out where it is JSON that was cut, and bounded', async () => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'answer', status: 500, body: '{"data":{"message":"{ \\"apiKey\\": \\"sk-se' });
    expect(reasonOf(await ask(fake.url))).toMatch(/HTTP 500$/);
    fake.override('GET /path', { kind: 'answer', status: 500, body: { message: 'x'.repeat(10_000) } });
    expect(reasonOf(await ask(fake.url)).length).toBeLessThan(500);
  });
});

describe('what answers in the place of opencode is named', () => {
  const PAGE = '<html><style>h1 { }</style><h1>502 Bad Gateway</h1><hr>nginx</html>';

  test.each<readonly [string, number, Readonly<Record<string, string>>, string, RegExp]>([
    [
      'a page',
      502,
      {},
      PAGE,
      /HTTP 502; it answers with a web page, as a proxy does; it says "502 Bad Gateway nginx"$/,
    ],
    ['a page without words', 403, {}, '<html></html>', /HTTP 403; it answers with a web page, as a proxy does$/],
    ['a page of open brackets', 500, {}, '<'.repeat(200_000), /HTTP 500; it answers with a web page/],
    ['text', 429, {}, 'slow\n\u001b[2Jdown', /HTTP 429; it says "slow down"$/],
    [
      'a redirect',
      302,
      { location: 'https://login.example/start?token=secret' },
      '',
      /answered with a redirect to "https:\/\/login\.example\/start" \(HTTP 302\), which is not followed$/,
    ],
    [
      'another password',
      401,
      { 'www-authenticate': 'Basic realm="Staff"' },
      PAGE,
      /none is known for it; not opencode asks, but what stands in front of it: "Basic realm='Staff'"$/,
    ],
    ['no password', 401, { 'www-authenticate': 'Bearer' }, '', /what stands in front of it: "Bearer"$/],
    ["opencode's own", 401, { 'www-authenticate': 'Basic realm="Secure Area"' }, '', /none is known for it$/],
  ])('%s', async (_, status, headers, body, reason) => {
    const url = await server((_request, response) => response.writeHead(status, headers).end(body));
    expect(reasonOf(await ask(url))).toMatch(reason);
  });

  test('a server of another protocol', async () => {
    const ssh = createTcpServer((socket) => {
      socket.on('error', () => {}).end('SSH-2.0-OpenSSH_9.2\r\n');
      closers.push(async () => socket.destroy());
    });
    await new Promise<void>((resolve) => ssh.listen(0, '127.0.0.1', resolve));
    closers.push(() => new Promise<void>((resolve) => ssh.close(() => resolve())));
    const { port } = ssh.address() as AddressInfo;
    expect(reasonOf(await ask(`http://127.0.0.1:${port}`))).toMatch(/HPE_\w+, the server does not speak HTTP$/);
    const fake = await fakeOpencode();
    const https = fake.url.replace('http:', 'https:');
    expect(reasonOf(await ask(https))).toMatch(/, the server does not speak HTTPS$/);
  });
});

describe('another instance than the one registered', () => {
  async function answer(claimed: string, told: string, route: Candidate['endpoint']['route'] = 'loopback') {
    const fake = await fakeOpencode({ directory: told });
    return ask(candidate({ url: fake.url, route, claims: { directory: claimed } }));
  }

  test('is unhealthy, and the reason names both directories', async () => {
    expect(reasonOf(await answer('/home/user/a', '/home/user/b'))).toBe(
      'unhealthy: another instance answers here: registered for /home/user/a, answering for /home/user/b',
    );
  });

  test.each([
    ['/home/user/a/', '/home/user/a'],
    ['/home/user/a', '/home/user/a//'],
    ['/tmp/x', '/private/tmp/x'],
    ['/private/var/x/', '/var/x'],
    ['/', '/'],
  ])('%s and %s are one directory', async (claimed, told) => {
    expect((await answer(claimed, told)).result.status).toBe('healthy');
  });

  test('a symbolic link on this machine is followed, for loopback endpoints only', async () => {
    const folder = await realpath(await mkdtemp(join(tmpdir(), 'probe-')));
    closers.push(() => rm(folder, { recursive: true }));
    const link = join(folder, 'link');
    await symlink(folder, link);
    expect((await answer(link, folder)).result.status).toBe('healthy');
    expect((await answer(link, folder, 'relay')).result.status).toBe('unhealthy');
    expect((await answer(link, folder, 'tailnet')).result.status).toBe('unhealthy');
  });

  test('no claimed directory is ever in a request', async () => {
    const seen: string[] = [];
    const url = await server((request, response) => {
      seen.push(`${request.url} ${JSON.stringify(request.headers)}`);
      response.setHeader('content-type', 'application/json');
      const body: Record<string, unknown> = {
        '/global/health': { healthy: true, version: '1.18.33' },
        '/path': { directory: '/private/tmp/claimed-7391', worktree: '/' },
        '/session/status': {},
        // Not of its form, so that the list of the own directory is asked for.
        '/experimental/session?limit=50': {},
      };
      response.end(JSON.stringify(body[request.url ?? ''] ?? []));
    });
    const claims = { directory: '/tmp/claimed-7391/', name: 'claimed-7391' };
    const look = await ask(candidate({ url, claims }), { parts: OVERVIEW_PARTS });
    expect(look.result.status).toBe('healthy');
    const told = encodeURIComponent('/private/tmp/claimed-7391');
    expect(seen.filter((line) => line.replaceAll(told, '').includes('claimed-7391'))).toEqual([]);
    expect(seen.map((line) => line.split(' ')[0]).filter((path) => path?.includes('directory'))).toEqual([
      `/session?directory=${told}&roots=true&limit=10`,
    ]);
  });

  test('a directory whose file system hangs is a timeout, asked for once however many wait', async () => {
    const asked: string[] = [];
    const sameDirectory = createSameDirectory((path) => {
      asked.push(path);
      return new Promise(() => {});
    });
    const controllers = [new AbortController(), new AbortController()];
    const waiting = controllers.map(({ signal }) => sameDirectory('/nfs/a', '/b', { sameMachine: true, signal }));
    for (const controller of controllers) controller.abort();
    await expect(Promise.allSettled(waiting)).resolves.toMatchObject([{ status: 'rejected' }, { status: 'rejected' }]);
    expect(asked).toEqual(['/nfs/a']);
  });
});

describe('what it is doing', () => {
  test('status, permissions, questions and the newest root session of its own directory, in one look', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/päth' });
    const session = fake.addSession({ title: 'Fix\u001b[31m the\nbuild' });
    fake.addSession({ title: 'elsewhere', directory: '/other' });
    fake.addPermission({ sessionID: session.id });
    fake.addQuestion({ sessionID: session.id });
    fake.state.statuses.set(session.id, { type: 'busy' });
    const look = await ask(fake.url, { parts: OVERVIEW_PARTS });
    expect(look).toMatchObject({
      learnt: {
        status: { activity: { kind: 'busy' }, running: [session.id] },
        permissions: [{ kind: 'permission', sessionId: session.id, text: 'bash "ls"' }],
        questions: [{ kind: 'question', sessionId: session.id, text: 'Go on? Yes | No' }],
        session: {
          id: session.id,
          title: 'Fix the build',
          directory: '/home/user/päth',
          updatedMs: session.time.updated,
        },
      },
      missing: [],
      timedOut: false,
      // One more finds out whose session waits.
      requests: 7,
    });
  });

  test("a sub-agent's request is told as such, and nobody's session is asked about by an id that is none", async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const parent = fake.addSession();
    const child = fake.addSession({ parentID: parent.id });
    fake.addPermission({ sessionID: child.id });
    expect((await ask(fake.url, { parts: ['permissions'] })).learnt).toMatchObject({
      permissions: [{ sessionId: child.id, ofSubAgent: true }],
    });
    // Left out, it would look as if less waited.
    fake.addPermission({ sessionID: '../../pty' });
    expect(await ask(fake.url, { parts: ['permissions'] })).toMatchObject({ learnt: {}, missing: ['permissions'] });
    expect([fake.count('GET /session/:id'), fake.count('other')]).toEqual([1, 0]);
  });

  test('what an abort left behind does not wait, though its session runs again; what cannot be looked into does', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.state.begin(session.id, 'first');
    const [, asking] = fake.state.messages.get(session.id) ?? [];
    const tool = { messageID: asking?.info.id ?? '', callID: 'call_1' };
    fake.addPermission({ sessionID: session.id, tool });
    const waiting = async (): Promise<number | undefined> =>
      (await ask(fake.url, { parts: OVERVIEW_PARTS })).learnt.permissions?.length;
    expect(await waiting()).toBe(1);
    fake.override('GET /session/:id/message/:messageID', { kind: 'answer', status: 500 }, 1);
    expect(await waiting()).toBe(1);
    Object.assign(asking?.info ?? {}, { error: { name: 'MessageAbortedError', data: { message: 'Aborted' } } });
    expect(await waiting()).toBe(0);
  });

  test('other directories are asked about each on its own', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const elsewhere = ['/home/user/b', '/home/user/c'].map((directory) => ({ directory, isListed: true }));
    const session = fake.addSession({ directory: '/home/user/b' });
    fake.addPermission({ sessionID: session.id });
    fake.state.statuses.set(session.id, { type: 'busy' });
    const look = await ask(fake.url, { parts: ['status'], elsewhere });
    expect(look.learnt).toEqual({ status: { activity: { kind: 'idle' }, running: [] } });
    expect(look.elsewhere?.get('/home/user/b')).toMatchObject({
      learnt: { status: { running: [session.id] }, permissions: [{ sessionId: session.id, ofSubAgent: false }] },
      missing: [],
    });
    expect(look.elsewhere?.get('/home/user/c')?.learnt).toMatchObject({ status: { running: [] }, permissions: [] });
    // Health, path, three statuses, what waits where something runs, and whose session it is.
    expect(look.requests).toBe(8);
    fake.override('GET /session/status', { kind: 'html' });
    const failed = await ask(fake.url, { elsewhere });
    expect(failed.elsewhere?.get('/home/user/b')).toMatchObject({ missing: ['status'] });
  });

  test('one that was not listed just now is named only where a session of the server is there', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const [there, moved] = ['/home/user/b', '/home/user/x'].map((directory) => fake.addSession({ directory }));
    const elsewhere = [
      { directory: '/home/user/b', witness: there?.id, isListed: false },
      { directory: '/home/user/c', witness: moved?.id, isListed: false },
      { directory: '/home/user/d', witness: 'ses_gone', isListed: false },
      { directory: '/home/user/e', isListed: false },
    ];
    const look = await ask(fake.url, { elsewhere });
    expect(look.elsewhere?.get('/home/user/b')?.learnt).toMatchObject({ witness: there?.id, status: { running: [] } });
    for (const name of ['c', 'd', 'e'])
      expect(look.elsewhere?.get(`/home/user/${name}`)).toMatchObject({ learnt: {}, isForeign: true });
    expect(fake.count('GET /session/status')).toBe(1);
    // No answer is no reason to forget it.
    fake.override('GET /session/:id', { kind: 'answer', status: 500 });
    expect((await ask(fake.url, { elsewhere })).elsewhere?.get('/home/user/b')).not.toHaveProperty('isForeign');
  });

  test('directories of sessions that were used in the last ten minutes come with the list of sessions', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const minutesAgo = (minutes: number): { created: number; updated: number } => ({
      created: 1,
      updated: Date.now() - minutes * 60_000,
    });
    const parent = fake.addSession({ directory: '/home/user/b', time: minutesAgo(9) });
    fake.addSession({ directory: '/home/user/b', parentID: parent.id, time: minutesAgo(1) });
    const child = fake.addSession({ directory: '/home/user/c', parentID: parent.id, time: minutesAgo(5) });
    fake.addSession({ directory: '/home/user/d', time: minutesAgo(11) });
    const own = fake.addSession({ time: minutesAgo(60) });
    const { session, recent } = (await ask(fake.url, { parts: ['session'] })).learnt;
    expect(session).toMatchObject({ id: own.id });
    expect([...(recent?.sessions ?? [])].map(([directory, { id, isChild }]) => [directory, id, isChild])).toEqual([
      ['/home/user/b', parent.id, false],
      ['/home/user/c', child.id, true],
    ]);
    expect(recent?.more).toBe(0);
  });

  test('the own latest session is asked for where the list is full of others, and of many directories the rest is counted', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const own = fake.addSession({ time: { created: 1, updated: 1 } });
    for (let index = 0; index < 60; index += 1) fake.addSession({ directory: `/home/user/w${index}` });
    const { session, recent } = (await ask(fake.url, { parts: ['session'] })).learnt;
    expect(session).toMatchObject({ id: own.id });
    expect([recent?.sessions.size, recent?.more]).toEqual([32, 28]);
  });

  test.each([
    ['refused, as a node service does for who may only read', { kind: 'answer', status: 403, body: {} }],
    ['not of its form', { kind: 'html' }],
    ['too long', { kind: 'endless' }],
  ] as const)('where the list of all sessions is %s, that of its own directory counts', async (_, override) => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const own = fake.addSession();
    fake.addSession({ directory: '/home/user/b' });
    const { id } = fake.addSession();
    fake.state.sessions.set(id, { ...own, id, time: { created: 1, updated: Date.now() + 1, archived: 2 } });
    fake.override('GET /experimental/session', override);
    const look = await ask(fake.url, { parts: ['session'] });
    expect(look).toMatchObject({ missing: [], learnt: { session: { id: own.id } } });
    expect(look.learnt.recent?.sessions.size).toBe(0);
  });

  test('a retry is told before plain work', async () => {
    const fake = await fakeOpencode();
    fake.state.statuses.set('ses_1', { type: 'busy' });
    fake.state.statuses.set('ses_2', { type: 'retry', attempt: 3, message: 'Overloaded\nagain', next: 0 });
    expect((await ask(fake.url, { parts: ['status'] })).learnt).toEqual({
      status: {
        activity: { kind: 'retrying', attempt: 3, message: 'Overloaded again' },
        running: ['ses_1', 'ses_2'],
      },
    });
  });

  test('an idle server without sessions has none', async () => {
    const fake = await fakeOpencode();
    expect((await ask(fake.url, { parts: OVERVIEW_PARTS })).learnt).toEqual({
      status: { activity: { kind: 'idle' }, running: [] },
      permissions: [],
      questions: [],
      session: null,
      recent: { sessions: new Map(), more: 0 },
    });
  });

  test('an idle one costs three requests once its version is known; what waits is asked where something runs', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    const version = '1.18.33';
    const first = await ask(fake.url, { parts: OVERVIEW_PARTS, version });
    // One more finds out how its latest turn ended.
    expect(first).toMatchObject({ result: { status: 'healthy', version }, missing: [], requests: 4 });
    const known = first.learnt;
    expect(await ask(fake.url, { parts: OVERVIEW_PARTS, version, known })).toMatchObject({
      learnt: known,
      missing: [],
      latencyMs: expect.any(Number),
      requests: 3,
    });
    fake.state.statuses.set(session.id, { type: 'busy' });
    expect((await ask(fake.url, { parts: OVERVIEW_PARTS, version, known })).requests).toBe(5);
    expect(fake.count('GET /global/health')).toBe(0);
  });

  test('whose session a request is, is asked once', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.state.statuses.set(session.id, { type: 'busy' });
    fake.addPermission({ sessionID: session.id });
    const { learnt } = await ask(fake.url, { parts: OVERVIEW_PARTS });
    expect(learnt.permissions).toMatchObject([{ ofSubAgent: false }]);
    expect((await ask(fake.url, { parts: OVERVIEW_PARTS, known: learnt })).learnt).toEqual(learnt);
    expect(fake.count('GET /session/:id')).toBe(1);
  });

  test('what waits is asked for where the status is not known', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.addPermission({ sessionID: session.id });
    fake.override('GET /session/status', { kind: 'answer', status: 500, body: {} });
    expect(await ask(fake.url, { parts: OVERVIEW_PARTS })).toMatchObject({
      learnt: { permissions: [{ sessionId: session.id }], questions: [] },
      missing: ['status'],
    });
  });

  test('routes that stay silent are missing; who is there and the rest are known', async () => {
    const fake = await fakeOpencode();
    fake.state.statuses.set('ses_1', { type: 'busy' });
    fake.override('GET /experimental/session', { kind: 'hang' });
    fake.override('GET /question', { kind: 'hang' });
    const others = Promise.all([whenAsked(fake, 'GET /experimental/session'), whenAsked(fake, 'GET /question')]);
    const giveUp = others.then(() => whenOthersAnswered(fake));
    const look = await ask(fake.url, { parts: OVERVIEW_PARTS, giveUp });
    expect(look).toMatchObject({
      result: { status: 'healthy' },
      learnt: { status: { activity: { kind: 'busy' } }, permissions: [] },
      timedOut: true,
    });
    expect(look.missing.toSorted()).toEqual(['questions', 'session']);
  });

  test('routes that answer nonsense are missing, and more time would not help', async () => {
    const fake = await fakeOpencode();
    for (const route of ['GET /experimental/session', 'GET /session'] as const)
      fake.override(route, { kind: 'answer', body: [{ id: 'x', title: 1 }] });
    fake.override('GET /session/status', { kind: 'answer', body: [] });
    fake.override('GET /permission', { kind: 'html' });
    fake.override('GET /question', { kind: 'answer', body: [1] });
    const look = await ask(fake.url, { parts: OVERVIEW_PARTS });
    expect(look).toMatchObject({ result: { status: 'healthy' }, timedOut: false });
    expect(look.learnt).toEqual({});
    expect(look.missing.toSorted()).toEqual([...OVERVIEW_PARTS].toSorted());
  });

  test('a session whose id opencode would not take back is not shown', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    for (const route of ['GET /experimental/session', 'GET /session'] as const)
      fake.override(route, { kind: 'answer', body: [{ ...session, id: '../../pty' }] });
    expect(await ask(fake.url, { parts: ['session'] })).toMatchObject({ learnt: {}, missing: ['session'] });
  });

  test('a second look asks only for what is missing', async () => {
    const fake = await fakeOpencode({ directory: '/home/user/a' });
    const first = await ask(fake.url);
    if (first.result.status !== 'healthy') throw new Error('not healthy');
    const look = await ask(fake.url, { parts: ['session'], identity: first.result });
    expect(look).toMatchObject({ result: first.result, learnt: { session: null }, requests: 1 });
    expect(fake.count('GET /global/health')).toBe(1);
  });

  test('a permission request with a big diff is still told, without the diff', async () => {
    const fake = await fakeOpencode();
    const session = fake.addSession();
    fake.addPermission({ sessionID: session.id, metadata: { diff: 'x'.repeat(9_000_000) } });
    expect((await ask(fake.url, { parts: ['permissions'] })).learnt).toEqual({
      permissions: [expect.objectContaining({ kind: 'permission', text: 'bash "ls"' })],
    });
  });
});

describe('how its latest session stands that does not run', () => {
  const MINUTE = 60_000;

  async function withLast(info: object | undefined): Promise<{ readonly fake: FakeOpencode; readonly id: string }> {
    const fake = await fakeOpencode();
    const { id } = fake.addSession();
    if (info !== undefined) fake.override('GET /session/:id/message', { kind: 'answer', body: [{ info, parts: [] }] });
    return { fake, id };
  }

  test.each([
    ['nothing was said', undefined, 'idle'],
    [
      'the last message is complete',
      (now) => ({ role: 'assistant', time: { created: now - 2, completed: now } }),
      'idle',
    ],
    [
      'it failed',
      (created) => ({ role: 'assistant', time: { created }, error: { name: 'MessageAbortedError' } }),
      'idle',
    ],
    ['the last message is not complete', (created) => ({ role: 'assistant', time: { created } }), 'interrupted'],
    ['a question just came', (created) => ({ role: 'user', time: { created } }), 'starting'],
    ['a question was never answered', (now) => ({ role: 'user', time: { created: now - MINUTE } }), 'interrupted'],
    ['the last message is nonsense', () => ({ role: 7, time: 'x' }), 'idle'],
  ] satisfies readonly (readonly [string, ((nowMs: number) => object) | undefined, string])[])(
    '%s',
    async (_, info, state) => {
      const { fake } = await withLast(info?.(Date.now()));
      const { learnt, missing } = await ask(fake.url, { parts: OVERVIEW_PARTS });
      expect(learnt.session?.rest?.state).toBe(state);
      expect(missing).toEqual([]);
    },
  );

  test('is asked about once for each turn, and again while it is not at its end', async () => {
    const { fake } = await withLast(undefined);
    const first = (await ask(fake.url, { parts: OVERVIEW_PARTS })).learnt.session ?? undefined;
    const again = await ask(fake.url, { parts: OVERVIEW_PARTS, known: { session: first ?? null } });
    expect(again.learnt.session).toEqual(first);
    expect(fake.count('GET /session/:id/message')).toBe(1);
    for (const changed of [
      { ...first, updatedMs: 1 },
      { ...first, id: 'ses_other' },
      { ...first, rest: { state: 'starting' } },
    ])
      await ask(fake.url, { parts: OVERVIEW_PARTS, known: { session: changed as SessionSummary } });
    expect(fake.count('GET /session/:id/message')).toBe(4);
  });

  test('is not asked about while it runs, nor where it is not known whether it does', async () => {
    const { fake, id } = await withLast(undefined);
    await ask(fake.url, { parts: ['session'] });
    fake.state.statuses.set(id, { type: 'busy' });
    expect((await ask(fake.url, { parts: OVERVIEW_PARTS })).learnt.session).not.toHaveProperty('rest');
    expect(fake.count('GET /session/:id/message')).toBe(0);
  });

  test('one that began after the status was told runs, and is not interrupted', async () => {
    const { fake, id } = await withLast({ role: 'assistant', time: { created: Date.now() } });
    fake.override('GET /session/status', { kind: 'answer', body: {} }, 1);
    fake.state.statuses.set(id, { type: 'busy' });
    expect((await ask(fake.url, { parts: OVERVIEW_PARTS })).learnt).toMatchObject({
      status: { activity: { kind: 'busy' }, running: [id] },
    });
  });

  test('a message that is silent or too big costs nothing else, and only the silent one is asked for again', async () => {
    const { fake } = await withLast({
      role: 'user',
      time: { created: Date.now() },
      text: Array.from({ length: 3_000 }, () => 'x'.repeat(1_000)),
    });
    const big = await ask(fake.url, { parts: OVERVIEW_PARTS });
    expect(big).toMatchObject({ missing: [], timedOut: false, learnt: { session: { rest: { state: 'idle' } } } });
    fake.override('GET /session/:id/message', { kind: 'hang' });
    const giveUp = until('it to be asked', () => fake.count('GET /session/:id/message') === 2);
    const silent = await ask(fake.url, { parts: OVERVIEW_PARTS, giveUp });
    expect(silent).toMatchObject({ missing: [], timedOut: false, learnt: { permissions: [] } });
    expect(silent.learnt.session).not.toHaveProperty('rest');
  });
});

/** Resolves when all but the two hanging requests have been answered, and their answers read: later ones of this process are. */
async function whenOthersAnswered(fake: FakeOpencode): Promise<void> {
  while (fake.load.current > 2) await new Promise((resolve) => setImmediate(resolve));
  for (let count = 0; count < 3; count += 1) await (await fetch(`${fake.url}/later`)).text();
}
