import { mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import type { Candidate } from '../../src/model/candidate.ts';
import { OVERVIEW_PARTS } from '../../src/model/instance.ts';
import type { Look } from '../../src/probing/probe-task.ts';
import { createSameDirectory } from '../../src/probing/same-directory.ts';
import { candidate } from '../fleet/candidates.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import { ask, fakeOpencode, server, whenAsked } from './probe-once.ts';

function reasonOf({ result }: Look): string {
  return 'reason' in result ? `${result.status}: ${result.reason}` : result.status;
}

/** The reason why a fake opencode that answers `route` in another way is not healthy. */
async function reasonIf(...[route, override]: Parameters<FakeOpencode['override']>): Promise<string> {
  const fake = await fakeOpencode();
  fake.override(route, override);
  return reasonOf(await ask(fake.url)).replaceAll(fake.url, 'URL');
}

/** The port of a server that answers with these bytes, until the end of the test. */
async function listenRaw(bytes: string): Promise<number> {
  const raw = createServer((socket) => {
    socket.on('error', () => {}).end(bytes, 'latin1');
    onTestFinished(() => void socket.destroy());
  });
  await new Promise<void>((resolve) => raw.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => new Promise<void>((resolve) => raw.close(() => resolve())));
  return (raw.address() as AddressInfo).port;
}

describe('the identity probe', () => {
  test('a healthy server reports its version and directories', async () => {
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

  test('the reason names the code of a refused connection', async () => {
    const fake = await fakeOpencode();
    await fake.close();
    const look = await ask(fake.url);
    expect(reasonOf(look)).toBe(`unhealthy: GET ${fake.url}/global/health: ECONNREFUSED`);
    expect(look).toMatchObject({ timedOut: false, requests: 1 });
  });

  test.each([
    ['GET /global/health', 'gave no answer'],
    ['GET /path', 'stopped answering'],
  ] as const)('a server that hangs at %s times out', async (route, problem) => {
    const fake = await fakeOpencode();
    fake.override(route, { kind: 'hang' });
    const look = await ask(fake.url, { giveUp: whenAsked(fake, route) });
    expect(reasonOf(look)).toBe(`unhealthy: ${fake.url} ${problem} within 60000 ms`);
    expect(look.timedOut).toBe(true);
  });

  test.each([
    [{}, 'it asks for a password and none is known for it'],
    [{ credential: { username: 'opencode', password: 'wrong' } }, 'it refused the password that was sent'],
    [{ credentialProblem: 'the vault is shut' }, 'the vault is shut'],
  ])(
    'a server that answers 401 is locked; the reason says whether a password was sent, or why not: %j',
    async (options, reason) => {
      const fake = await fakeOpencode({ password: 'right' });
      expect(reasonOf(await ask(fake.url, options))).toBe(`locked: ${fake.url} answered HTTP 401: ${reason}`);
    },
  );

  test('HTML with 200, as opencode answers unknown paths, is not an opencode', async () => {
    for (const route of ['GET /global/health', 'GET /path'] as const)
      expect(await reasonIf(route, { kind: 'html' })).toContain('answered text/html instead of application/json');
  });

  test.each([
    ['an endless body', { kind: 'endless' }],
    ['10 MB of JSON', { kind: 'answer', body: { healthy: true, version: '1.18.33', x: 'x'.repeat(10_000_000) } }],
  ] as const)('%s is not read to its end', async (_, override) => {
    expect(await reasonIf('GET /global/health', override)).toContain('the body is larger than 262144 bytes');
  });

  const refusedByNode = { 'proxy-status': 'opencode-mcp; error=http_request_denied' };
  test.each([
    [503, {}, true],
    [500, {}, true],
    [429, {}, true],
    [404, {}, undefined],
    [404, refusedByNode, true],
    [403, refusedByNode, true],
    [200, {}, undefined],
  ])('after HTTP %i with headers %j notNow is %s', async (status, headers, notNow) => {
    const url = await server((_, response) =>
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end('{}'),
    );
    const look = await ask(url);
    expect([look.result.status, look.timedOut, look.notNow]).toEqual(['unhealthy', false, notNow]);
  });

  test('a server that reports that it is not healthy is unhealthy', async () => {
    const body = { healthy: false, version: '1.18.33' };
    expect(await reasonIf('GET /global/health', { kind: 'answer', body })).toBe(
      'unhealthy: URL reports that it is not healthy',
    );
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
    const headers = { 'content-type': 'application/json' };
    expect(await reasonIf('GET /global/health', { kind: 'answer', headers, body })).toContain(
      'not the answer of an opencode server',
    );
  });

  test.each([
    ['relative', 'home/user'],
    ['empty', ''],
    ['too long', `/${'a'.repeat(4096)}`],
    ['a text with a NUL', '/home/\0user'],
    ['a text with a lone surrogate', '/home/\ud800user'],
    ['not a string', 7],
    ['missing', undefined],
  ])('a directory is refused if it is %s', async (_, directory) => {
    for (const body of [
      { directory, worktree: '/' },
      { directory: '/', worktree: directory },
    ])
      expect(await reasonIf('GET /path', { kind: 'answer', body })).toContain('not the answer of an opencode server');
  });

  test.each([
    ['/'],
    [`/${'a'.repeat(4095)}`],
    ['C:\\Users\\me'],
    ['D:/work'],
    ['\\\\host\\share'],
    ['/home/Ünïcödé 目录'],
    // Control characters are removed only on display.
    ['/home/\nuser\u001b[2J\u009b\u202e\u2028'],
  ])('the directory %j is accepted', async (directory) => {
    const fake = await fakeOpencode();
    fake.override('GET /path', { kind: 'answer', body: { directory, worktree: directory } });
    expect((await ask(fake.url)).result).toMatchObject({ status: 'healthy', directory });
  });

  test('a reason with remote text is one clean line', async () => {
    // Node's HTTP server refuses to send such a header.
    const port = await listenRaw('HTTP/1.1 200 OK\r\ncontent-type: text/\x9b2Jx\r\ncontent-length: 0\r\n\r\n');
    const reason = reasonOf(await ask(`http://127.0.0.1:${port}`));
    expect(reason).toContain('instead of application/json');
    // eslint-disable-next-line no-control-regex -- these must not occur
    expect(reason).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  });
});

describe('versions', () => {
  test.each(['1.18.9', '1.17.99', '0.15.31', '1.18.9-beta.1', 'v1.2.3'])('opencode %s is too old', async (version) => {
    const fake = await fakeOpencode({ version });
    expect(await ask(fake.url)).toMatchObject({
      result: { status: 'unsupported', version, reason: `opencode ${version} is too old; 1.18.10 or newer is needed` },
      requests: 1,
    });
  });

  test.each([
    ...['2.0.0', '2.0.0-alpha.1', '10.1.0'].map((version) => [version, 'unsupported']),
    ...['1.18.10', '1.18.33', '1.19.0', '1.100.0', '1.18.10-rc1'].map((version) => [version, 'healthy']),
    ...['0.0.0-dev-202611', '0.0.0', 'local', 'main-abc'].map((version) => [version, 'healthy']),
  ])('opencode %s is %s', async (version, status) => {
    const fake = await fakeOpencode({ version });
    expect((await ask(fake.url)).result).toMatchObject({ status, version });
  });
});

describe('the message in an error of opencode', () => {
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
  ])('is in the reason, without API keys: %j', async (body, message) => {
    const reason = await reasonIf('GET /path', { kind: 'answer', status: 400, body });
    expect(reason).toMatch(/^unhealthy: GET URL\/path: HTTP 400; it says /);
    expect(reason).toContain(message);
    expect(reason).not.toContain('sk-secret');
  });

  test('is bounded, and left out if the JSON is truncated', async () => {
    const truncated = '{"data":{"message":"{ \\"apiKey\\": \\"sk-se';
    expect(await reasonIf('GET /path', { kind: 'answer', status: 500, body: truncated })).toMatch(/HTTP 500$/);
    const long = { message: 'x'.repeat(10_000) };
    expect((await reasonIf('GET /path', { kind: 'answer', status: 500, body: long })).length).toBeLessThan(500);
  });
});

describe('the reason names what answers instead of opencode', () => {
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
      'a password prompt of a proxy',
      401,
      { 'www-authenticate': 'Basic realm="Staff"' },
      PAGE,
      /none is known for it; it is not opencode that asks, but something in front of it: "Basic realm='Staff'"$/,
    ],
    ['a Bearer challenge', 401, { 'www-authenticate': 'Bearer' }, '', /something in front of it: "Bearer"$/],
    ["opencode's own challenge", 401, { 'www-authenticate': 'Basic realm="Secure Area"' }, '', /none is known for it$/],
  ])('for %s', async (_, status, headers, body, reason) => {
    const url = await server((_request, response) => response.writeHead(status, headers).end(body));
    expect(reasonOf(await ask(url))).toMatch(reason);
  });

  test('for a server of another protocol', async () => {
    const port = await listenRaw('SSH-2.0-OpenSSH_9.2\r\n');
    expect(reasonOf(await ask(`http://127.0.0.1:${port}`))).toMatch(/HPE_\w+, the server does not speak HTTP$/);
    const fake = await fakeOpencode();
    const https = fake.url.replace('http:', 'https:');
    expect(reasonOf(await ask(https))).toMatch(/, the server does not speak HTTPS$/);
  });
});

describe('another instance than the one registered', () => {
  async function probeRegistered(claimed: string, actual: string, route: Candidate['endpoint']['route'] = 'loopback') {
    const fake = await fakeOpencode({ directory: actual });
    return ask(candidate({ url: fake.url, route, claims: { directory: claimed } }));
  }

  test('is unhealthy; the reason names both directories', async () => {
    expect(reasonOf(await probeRegistered('/home/user/a', '/home/user/b'))).toBe(
      'unhealthy: another instance answers here: registered for /home/user/a, answering for /home/user/b',
    );
  });

  test.each([
    ['/home/user/a/', '/home/user/a'],
    ['/home/user/a', '/home/user/a//'],
    ['/tmp/x', '/private/tmp/x'],
    ['/private/var/x/', '/var/x'],
    ['/', '/'],
  ])('%s and %s are one directory', async (claimed, actual) => {
    expect((await probeRegistered(claimed, actual)).result.status).toBe('healthy');
  });

  test('a symbolic link is followed for loopback endpoints only', async () => {
    const folder = await realpath(await mkdtemp(join(tmpdir(), 'probe-')));
    onTestFinished(() => rm(folder, { recursive: true }));
    const link = join(folder, 'link');
    await symlink(folder, link);
    expect((await probeRegistered(link, folder)).result.status).toBe('healthy');
    expect((await probeRegistered(link, folder, 'relay')).result.status).toBe('unhealthy');
    expect((await probeRegistered(link, folder, 'tailnet')).result.status).toBe('unhealthy');
  });

  test('a claimed directory is never in a request', async () => {
    const seen: string[] = [];
    const url = await server((request, response) => {
      seen.push(`${request.url} ${JSON.stringify(request.headers)}`);
      response.setHeader('content-type', 'application/json');
      const body: Record<string, unknown> = {
        '/global/health': { healthy: true, version: '1.18.33' },
        '/path': { directory: '/private/tmp/claimed-7391', worktree: '/' },
        '/session/status': {},
        // Malformed, so that the list of the instance's directory is requested.
        '/experimental/session?limit=50': {},
      };
      response.end(JSON.stringify(body[request.url ?? ''] ?? []));
    });
    const claims = { directory: '/tmp/claimed-7391/', name: 'claimed-7391' };
    const look = await ask(candidate({ url, claims }), { parts: OVERVIEW_PARTS });
    expect(look.result.status).toBe('healthy');
    const encodedDirectory = encodeURIComponent('/private/tmp/claimed-7391');
    expect(seen.filter((line) => line.replaceAll(encodedDirectory, '').includes('claimed-7391'))).toEqual([]);
    expect(seen.map((line) => line.split(' ')[0]).filter((path) => path?.includes('directory'))).toEqual([
      `/session?directory=${encodedDirectory}&roots=true&limit=10`,
    ]);
  });

  test('a hung file system gets one call for all probes, and times out', async () => {
    const calls: string[] = [];
    const sameDirectory = createSameDirectory((path) => {
      calls.push(path);
      return new Promise(() => {});
    });
    const controllers = [new AbortController(), new AbortController()];
    const comparisons = controllers.map(({ signal }) => sameDirectory('/nfs/a', '/b', { sameMachine: true, signal }));
    for (const controller of controllers) controller.abort();
    await expect(Promise.allSettled(comparisons)).resolves.toMatchObject([
      { status: 'rejected' },
      { status: 'rejected' },
    ]);
    expect(calls).toEqual(['/nfs/a']);
  });
});
