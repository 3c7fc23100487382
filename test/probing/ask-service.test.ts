import { describe, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { type Dialect, OVERVIEW_PARTS } from '../../src/model/instance.ts';
import { askService } from '../../src/probing/ask-service.ts';
import { ProbeRequests } from '../../src/probing/probe-requests.ts';
import type { ProbeTask } from '../../src/probing/probe-task.ts';
import { candidate } from '../fleet/candidates.ts';
import { listenHttp } from '../rig/http-listener.ts';

const NOW = Date.UTC(2026, 10, 1, 12);
const HOUR_MS = 3_600_000;

interface Service {
  readonly sessions: readonly object[];
  readonly active?: readonly string[];
  /** By path; the default is an empty list. */
  readonly answers?: Readonly<Record<string, object | number>>;
  /** The answer to each older page of sessions: a status, or none until the probe is aborted. */
  readonly older?: number | 'hang';
  /** Known from an earlier probe. */
  readonly version?: string;
}

const session = (id: string, directory: string, hoursAgo: number, more: object = {}) => ({
  id: `ses_${id}`,
  title: id,
  location: { directory },
  time: { created: 1, updated: NOW - hoursAgo * HOUR_MS },
  ...more,
});

/** Probes a service; returns the result and the requested paths. */
async function probe(
  { sessions, active = [], answers = {}, older, version }: Service,
  dialect: Dialect = 'opencode-2',
) {
  const paths: string[] = [];
  const controller = new AbortController();
  const { url, close } = await listenHttp((request, response) => {
    const { pathname: path, searchParams } = new URL(request.url ?? '', 'http://localhost');
    paths.push(path);
    const start = Number(searchParams.get('cursor') ?? 0);
    const end = start + Number(searchParams.get('limit'));
    const data = path.endsWith('/active')
      ? Object.fromEntries(active.map((id) => [`ses_${id}`, { type: 'running' }]))
      : path === '/api/session'
        ? sessions.slice(start, end)
        : [];
    const answer = (start > 0 ? older : answers[path]) ?? {
      data,
      // The last page has a cursor too, which leads to an empty page.
      ...(path === '/api/session' && { cursor: { next: data.length === 0 ? null : String(end) } }),
    };
    if (answer === 'hang') return controller.abort();
    response.writeHead(typeof answer === 'number' ? answer : 200, {
      'content-type': 'application/json',
      // The server's clock, which may differ from ours.
      date: new Date(NOW).toUTCString(),
    });
    response.end(JSON.stringify(answer));
  });
  onTestFinished(close);
  const target = candidate({ url });
  const task: ProbeTask = {
    candidate: target,
    connection: { endpoint: target.endpoint },
    parts: OVERVIEW_PARTS,
    limitMs: 5_000,
    signal: controller.signal,
    version,
  };
  const deps = { clock: systemClock, sameDirectory: () => Promise.resolve(true), onRequest: () => {} };
  const result = await askService(new ProbeRequests(task, deps), task, dialect);
  const listed = [...(result.elsewhere ?? [])].filter(([, { learnt }]) => learnt.isOld !== true).map(([name]) => name);
  return { ...result, paths, listed };
}

describe('the listed directories', () => {
  test('are those used within a day by the server’s clock; the others are counted', async () => {
    const { listed, elsewhere } = await probe({
      sessions: [session('a', '/new', 1), session('b', '/old', 25), session('c', '/older', 300)],
    });
    expect(listed).toEqual(['/new']);
    expect([...(elsewhere?.keys() ?? [])]).toEqual(['/new', '/old', '/older']);
  });

  test('are at most 16, and all in which a session runs', async () => {
    const many = Array.from({ length: 20 }, (_, index) => session(`n${index}`, `/n${index}`, 1));
    const { listed, elsewhere } = await probe({ sessions: [...many, session('run', '/old', 99)], active: ['run'] });
    expect(listed).toHaveLength(17);
    expect(listed).toContain('/old');
    expect(elsewhere?.size).toBe(21);
  });
});

describe('older sessions', () => {
  const sessions = (count: number) =>
    Array.from({ length: count }, (_, index) => session(`n${index}`, `/n${index}`, 99));

  test('are read to the end, page by page', async () => {
    const { elsewhere, isWhole, paths } = await probe({ sessions: sessions(1_250) });
    expect([elsewhere?.size, isWhole]).toEqual([1_250, true]);
    // 100, three pages of at most 500, and the empty one.
    expect(paths.filter((path) => path === '/api/session')).toHaveLength(5);
  });

  test('are read up to 5,000', async () => {
    const { elsewhere, isWhole } = await probe({ sessions: sessions(6_000) });
    expect([elsewhere?.size, isWhole]).toEqual([5_100, false]);
  });

  test('are not requested in an ordinary survey, nor if all are listed', async () => {
    const ordinary = await probe({ sessions: sessions(150), version: '2.1.2' });
    expect([ordinary.elsewhere?.size, ordinary.isWhole, ordinary.paths.length]).toEqual([100, false, 2]);
    const few = await probe({ sessions: sessions(99) });
    expect([few.elsewhere?.size, few.isWhole, few.paths.length]).toEqual([99, true, 2]);
  });

  test.each([
    [500, []],
    ['hang', ['session']],
  ] as const)(
    'that fail leave the newest ones, and only a timeout counts as missing sessions: %s',
    async (older, missing) => {
      const found = await probe({ sessions: sessions(150), older });
      expect(found).toMatchObject({ isWhole: false, missing, timedOut: missing.length > 0 });
      expect(found.elsewhere?.size).toBe(100);
    },
  );
});

describe('the work in a directory', () => {
  test('is busy if one of its sessions runs', async () => {
    const { elsewhere, learnt } = await probe({
      sessions: [session('a', '/a', 1), session('b', '/b', 1)],
      active: ['b'],
    });
    expect(elsewhere?.get('/a')?.learnt.status).toEqual({ activity: { kind: 'idle' }, running: [] });
    expect(elsewhere?.get('/b')?.learnt.status).toEqual({ activity: { kind: 'busy' }, running: ['ses_b'] });
    expect(learnt.status).toEqual({ activity: { kind: 'busy' }, running: ['ses_b'] });
  });

  test('has a latest session that is neither a sub-agent’s nor archived', async () => {
    const { elsewhere } = await probe({
      sessions: [
        session('sub', '/a', 0, { parentID: 'ses_root' }),
        session('away', '/a', 1, { time: { created: 1, updated: NOW, archived: NOW } }),
        session('root', '/a', 2),
      ],
    });
    expect(elsewhere?.get('/a')?.learnt.session).toMatchObject({ id: 'ses_root' });
  });

  test('a running session that is not listed is looked up', async () => {
    const { listed, paths } = await probe({
      sessions: [session('a', '/a', 1)],
      active: ['far'],
      answers: { '/api/session/ses_far': { data: session('far', '/far', 999) } },
    });
    expect(listed).toEqual(['/far', '/a'].toSorted());
    expect(paths).toContain('/api/session/ses_far');
  });

  test('has the permissions of running sessions, and their forms or the questions of the preview', async () => {
    const running = { sessions: [session('a', '/a', 1)], active: ['a'] };
    const permission = { id: 'per_1', sessionID: 'ses_a', action: 'shell', resources: ['ls'] };
    const question = {
      id: 'que_1',
      sessionID: 'ses_a',
      questions: [{ question: 'Which?', options: [{ label: 'Red' }] }],
    };
    const options = [{ value: 'r', label: 'Red' }];
    const form = { id: 'frm_1', sessionID: 'ses_a', title: 'Which?', fields: [{ key: 'k', type: 'string', options }] };
    const preview = await probe(
      { ...running, answers: { '/api/session/ses_a/question': { data: [question] } } },
      'opencode-2-preview',
    );
    expect(preview.paths).not.toContain('/api/session/ses_a/form');
    expect(preview.elsewhere?.get('/a')?.learnt.questions).toMatchObject([{ id: 'que_1', text: 'Which? Red' }]);
    const release = await probe({
      ...running,
      answers: { '/api/session/ses_a/permission': { data: [permission] }, '/api/session/ses_a/form': { data: [form] } },
    });
    expect(release.elsewhere?.get('/a')?.learnt).toMatchObject({
      permissions: [{ id: 'per_1', text: 'bash "ls"', ofSubAgent: false }],
      questions: [{ id: 'frm_1', text: 'Which? Red' }],
    });
  });
});

describe('failing requests', () => {
  test('without sessions, no directory is known', async () => {
    const { learnt, missing, elsewhere } = await probe({
      sessions: [session('a', '/a', 1)],
      answers: { '/api/session': 500 },
    });
    expect(learnt).toEqual({});
    expect(missing).toEqual(['session']);
    expect(elsewhere).toBeUndefined();
  });

  test('without active sessions, directories are listed, but with an unknown status', async () => {
    const { learnt, missing, elsewhere, listed } = await probe({
      sessions: [session('a', '/a', 1)],
      answers: { '/api/session/active': 500 },
    });
    expect(missing).toEqual(['status', 'permissions', 'questions']);
    expect(learnt.status).toBeUndefined();
    expect(listed).toEqual(['/a']);
    expect(elsewhere?.get('/a')).toEqual({
      learnt: { session: expect.objectContaining({ id: 'ses_a' }), isOld: false },
      missing,
    });
  });

  test('a malformed session hides no other', async () => {
    const { listed, missing } = await probe({
      sessions: [session('a', 'relative', 1), { id: 7 }, session('b', '/b', 1)],
    });
    expect(listed).toEqual(['/b']);
    expect(missing).toEqual([]);
  });

  test.each([
    ['/api/session', { data: [session('b', '/b', 1), { id: 7 }] }, 'GET /api/session: unexpected answer at data.1.id'],
    [
      '/api/session/active',
      { data: { ses_a: {}, 'no id': {} } },
      'GET /api/session/active: unexpected answer at "data.no id"',
    ],
    ['/api/session/ses_a/form', { data: {} }, 'GET /api/session/ses_a/form: unexpected answer at data'],
    ['/api/session/ses_a/permission', {}, 'GET /api/session/ses_a/permission: unexpected answer at data'],
  ])('an answer that does not fit the contract is reported with route and field: %s', async (path, answer, misfit) => {
    const found = await probe({ sessions: [session('a', '/a', 1)], active: ['a'], answers: { [path]: answer } });
    expect(found.misfits).toEqual([expect.stringContaining(misfit)]);
  });

  test('malformed permissions of one session are missing in its directory only', async () => {
    const { missing, elsewhere } = await probe({
      sessions: [session('a', '/a', 1), session('b', '/b', 1)],
      active: ['a', 'b'],
      answers: { '/api/session/ses_a/permission': { data: [{ id: 'per_1' }] } },
    });
    expect(missing).toEqual(['permissions', 'questions']);
    expect(elsewhere?.get('/a')?.missing).toEqual(missing);
    expect(elsewhere?.get('/b')?.missing).toEqual([]);
    expect(elsewhere?.get('/a')?.learnt.status).toMatchObject({ activity: { kind: 'busy' } });
  });
});
