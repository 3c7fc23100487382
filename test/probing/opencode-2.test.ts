import { describe, expect, test } from 'vitest';

import type { Candidate } from '../../src/model/candidate.ts';
import { candidate } from '../fleet/candidates.ts';
import { ask, server } from './probe-once.ts';

describe('an OpenCode 2', () => {
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
      '2.1.0-beta.3',
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
  ] as const)('%s is healthy', async (_, health, routes, expected) => {
    const { result } = await ask(await startServer({ '/global/health': health, ...routes }));
    expect(result).toEqual({ status: 'healthy', directory: '', worktree: '', ...expected });
  });

  test.each(['2.4.0', '3.0.1'])('%s is newer than the known versions', async (version) => {
    const { result } = await ask(await startServer({ '/global/health': html, '/api/info': info(version) }));
    expect(result).toMatchObject({ status: 'unsupported', version });
    expect(result).toHaveProperty('reason', expect.stringContaining('2.0 to 2.3 are known; update opencode-mcp'));
  });

  test.each([
    ['2.x', html, { '/api/info': tag }],
    ['2.x that refuses every request', tag, { '/api/info': tag }],
    ['the preview', empty, { '/api/health': tag }],
  ] as const)('%s is locked without its password, and recognised as OpenCode 2', async (_, health, routes) => {
    const { result } = await ask(await startServer({ '/global/health': health, ...routes }));
    expect(result).toMatchObject({ status: 'locked' });
    expect(result).toHaveProperty('reason', expect.stringContaining('this is an OpenCode 2'));
  });

  const probeWithServiceFile = async (
    routes: Readonly<Record<string, Answer>>,
    claims: NonNullable<Candidate['claims']['service']>,
  ) => ask({ ...candidate({ url: await startServer(routes) }), claims: { service: claims } });

  test('with a service file is identified by one request', async () => {
    const probed = await probeWithServiceFile({ '/api/info': info('2.1.2') }, service);
    expect(probed).toMatchObject({ result: { status: 'healthy', version: '2.1.2' }, requests: 1 });
    const preview = { '/api/health': json(200, { healthy: true }) };
    expect(await probeWithServiceFile(preview, { pid: 7, version: '1.18.18', isPreview: true })).toMatchObject({
      result: { status: 'healthy', version: '1.18.18', dialect: 'opencode-2-preview' },
      requests: 1,
    });
  });

  test.each([
    ['has another pid', info('2.1.2', 8)],
    ['has another version', info('2.1.3')],
  ])('that %s than its service file is unhealthy', async (_, answer) => {
    const { result } = await probeWithServiceFile({ '/api/info': answer }, service);
    expect(result).toMatchObject({ status: 'unhealthy' });
    expect(result).toHaveProperty('reason', expect.stringContaining('the service file names process 7'));
  });

  test('on another machine is not compared with its service file', async () => {
    const { result } = await probeWithServiceFile({ '/api/info': info('2.1.3', 8) }, { version: '2.1.2' });
    expect(result).toMatchObject({ status: 'healthy', version: '2.1.3', pid: 8 });
  });

  test('of an early 2.0 release, without /api/info, is unsupported', async () => {
    const early = await ask(
      await startServer({ '/global/health': html, '/api/status': json(200, { version: '2.0.3' }) }),
    );
    expect(early.result).toMatchObject({ status: 'unsupported', version: '2.0.3' });
    const { result } = await probeWithServiceFile({}, { pid: 7, version: '2.0.3' });
    expect(result).toMatchObject({ status: 'unsupported', version: '2.0.3' });
  });

  test.each([
    ['OpenCode 1 behind a password', { status: 401, body: '' }, {}, 'locked'],
    ['a web page', html, {}, 'unhealthy'],
    ['another server', html, { '/api/info': json(200, { version: '7' }) }, 'unhealthy'],
    ['another server that has a version', html, { '/api/info': json(200, { version: '2.1.2' }) }, 'unhealthy'],
    ['another server with a status', html, { '/api/status': json(200, { version: '11.2.0' }) }, 'unhealthy'],
    ['another server with /api/health', html, { '/api/health': json(200, { healthy: true }) }, 'unhealthy'],
    [
      'a server that answers null',
      empty,
      { '/api/info': json(200, null), '/api/health': json(200, null) },
      'unhealthy',
    ],
  ] as const)('is not detected in %s', async (_, health, routes, status) => {
    expect((await ask(await startServer({ '/global/health': health, ...routes }))).result.status).toBe(status);
  });

  interface Answer {
    readonly status: number;
    readonly body: unknown;
  }

  /** Answers every other path with a web page, as OpenCode 1 does. */
  const startServer = (routes: Readonly<Record<string, Answer>>): Promise<string> =>
    server((request, response) => {
      const { status, body } = routes[request.url ?? ''] ?? html;
      const type = typeof body === 'string' ? 'text/html' : 'application/json';
      response.writeHead(status, body === '' ? {} : { 'content-type': type });
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    });
});
