import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { type McpChild, startMcpChild } from '../../rig/programs/mcp-child.ts';
import type { FakeOpencode2, FakeRequest } from '../../rig/opencode-2/fake-opencode-2.ts';
import { RESUMED_REPLY } from '../../rig/opencode-2/turns.ts';
import { CONTINUED } from '../../rig/model/model-script.ts';
import { data, openFakeService } from '../generations/grounds.ts';

/** Tests behaviour of 2.1 that the preview lacks, on the fake. */
let fake: FakeOpencode2;
let close: () => Promise<void>;
let server: McpChild;
let app: string;
let other: string;

beforeAll(async () => {
  const service = await openFakeService(['app', 'other']);
  ({ fake, close } = service);
  ({ app, other } = service.directories);
  for (const directory of [app, other]) fake.addSession({ directory, title: 'First' });
  server = await startMcpChild({ args: ['--transport', 'service'], env: { HOME: fake.home } });
});
beforeEach(() => fake.setFault(undefined));
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await close?.();
});

interface Row {
  readonly name: string;
  readonly state: string;
  readonly directory?: string;
  readonly waiting?: readonly string[];
}

const rows = async (tool = 'instances'): Promise<readonly Row[]> =>
  (data(await server.call(tool, {})) as { instances: readonly Row[] }).instances;
const nameOf = async (directory: string | undefined): Promise<string> =>
  (await rows('list_instances')).find((one) => one.directory === directory)?.name ?? 'not listed';
const newSession = async (directory = app): Promise<{ instance: string; session_id: string }> => {
  const instance = await nameOf(directory);
  const { session } = data(await server.call('create_session', { instance, title: 'New' })) as {
    session: { id: string };
  };
  return { instance, session_id: session.id };
};
const prompts = (id: string): readonly unknown[] =>
  fake.session(id).messages.flatMap((one) => (one['type'] === 'user' ? [one['text']] : []));
const since = async (work: () => Promise<unknown>): Promise<readonly FakeRequest[]> => {
  const before = fake.requests.length;
  await work();
  return fake.requests.slice(before);
};

describe('a listing', () => {
  test('sends two requests for all directories, and loads no directory', async () => {
    await rows();
    const asked = await since(() => rows());
    expect(asked.map(({ path }) => path).toSorted()).toEqual(['/api/session', '/api/session/active']);
    const service = await nameOf(undefined);
    for (const instance of [service, await nameOf(app)]) {
      await server.call('list_sessions', { instance });
      await server.call('get_status', { instance });
    }
    await rows('refresh_instances');
    expect([...fake.loaded]).toEqual([]);
  });

  test('names directories as for OpenCode 1, and never resolves part of a name to the service', async () => {
    const names = (await rows()).map(({ name }) => name);
    expect(names).toEqual([
      expect.stringMatching(/^[\w.]+-app$/),
      expect.stringMatching(/^[\w.]+-other$/),
      expect.stringMatching(/^[\w.]+:service$/),
    ]);
    expect((await server.call('list_sessions', { instance: 'app' })).result.isError).not.toBe(true);
    expect((await server.call('list_sessions', { instance: ':service' })).text).toContain('No instance fits');
  });

  test('sends two more requests for each running session, and shows its waiting requests', async () => {
    const { instance, session_id } = await newSession(other);
    await server.call('send', { instance, session_id, message: 'bash: echo wait' });
    const asked = await since(rows);
    expect(asked.map(({ path }) => path.replace(session_id, ':id')).toSorted()).toEqual([
      '/api/session',
      '/api/session/:id/form',
      '/api/session/:id/permission',
      '/api/session/active',
    ]);
    const waiting = (await rows()).filter(({ state }) => state === 'waiting');
    expect(waiting.map(({ name }) => name)).toEqual([instance]);
    const { turns } = data(await server.call('wait', {})) as { turns: { instance: string }[] };
    expect(turns.map((turn) => turn.instance)).toEqual([instance]);
    expect(waiting[0]?.waiting?.[0]).toContain('«bash "echo wait"»');
    await server.call('abort_session', { instance, session_id });
  });

  test('of many running sessions causes no warning from Node', async () => {
    const { instance } = await newSession();
    const ids = Array.from({ length: 8 }, () => fake.addSession({ directory: app }).info.id);
    const gate = (index: number): string => `many-${index}`;
    for (const [index, id] of ids.entries()) {
      await fake.json('POST', `/api/session/${id}/prompt`, { text: `gate ${gate(index)}: done` });
      await fake.model.waitForGate(gate(index));
    }
    const warned = server.stderr.length;
    expect((await rows('refresh_instances')).find(({ name }) => name === instance)).toMatchObject({ state: 'busy' });
    for (const index of ids.keys()) fake.model.release(gate(index));
    await server.call('wait', { instances: [instance] });
    expect(server.stderr.slice(warned).join('\n')).not.toContain('MaxListeners');
  });

  test('does not show an archived session as the latest', async () => {
    const { instance, session_id } = await newSession();
    await fake.json('PATCH', `/api/session/${session_id}`, { archived: true }).catch(() => {});
    expect(data(await server.call('read', { instance }))['session']).not.toMatchObject({ id: session_id });
  });
});

describe('a session is created', () => {
  test('by the service only in a directory of its sessions', async () => {
    const instance = await nameOf(undefined);
    const made = data(await server.call('create_session', { instance, directory: other }));
    expect(made['session']).toMatchObject({ directory: other });
    const refused = await server.call('create_session', { instance, directory: '/etc' });
    expect(refused.text).toContain('no session was created');
    expect(fake.loaded.has('/etc')).toBe(false);
    expect((await server.call('send', { instance, message: 'echo: x' })).text).toContain('nothing was sent');
  });
});

describe('a prompt runs once', () => {
  test.each([
    ['the connection broke before it arrived', { drop: 'before' }],
    ['the connection broke after it was taken', { drop: 'after' }],
    ['a gateway gave up', { answer: { status: 504, type: 'text/html', body: '<html>late</html>' } }],
  ] as const)('where %s', async (_, fault) => {
    const { instance, session_id } = await newSession();
    let faults = 0;
    fake.setFault(({ path }) => (path.endsWith('/prompt') && (faults += 1) < 3 ? fault : undefined));
    const sent = await server.call('send', { instance, session_id, message: 'echo: once' });
    expect(data(sent), sent.text).toMatchObject({ outcome: 'completed', text: 'once' });
    expect(prompts(session_id)).toEqual(['echo: once']);
    expect(faults).toBeGreaterThan(0);
  });
});

describe('a request of an agent', () => {
  test('in a form is answered in the types of its fields, after a check of the answer', async () => {
    const { instance, session_id } = await newSession();
    fake.script('fill in', [
      {
        kind: 'form',
        title: 'Deploy',
        fields: [
          {
            key: 'where',
            type: 'string',
            title: 'Where',
            required: true,
            options: [{ value: 'eu-1', label: 'Europe' }],
          },
          { key: 'count', type: 'integer', title: 'How many', required: true, minimum: 1 },
          { key: 'dry', type: 'boolean', title: 'Dry run', required: true },
          {
            key: 'parts',
            type: 'multiselect',
            title: 'Parts',
            options: ['a', 'b'].map((value) => ({ value, label: value.toUpperCase() })),
          },
          { key: 'note', type: 'string', title: 'Note' },
        ],
      },
      { kind: 'report', tool: 'question' },
    ]);
    const sent = data(await server.call('send', { instance, session_id, message: 'fill in' }));
    expect(sent).toMatchObject({ outcome: 'waiting' });
    const answers = (count: string): string[][] => [['Europe'], [count], ['Yes'], ['A', 'B'], []];
    const wrong = await server.call('respond', { instance, answers: answers('many') });
    expect(wrong.text).toMatch(/Nothing was answered: field 2, "How many", takes a whole number, not "many"/);
    const asked = await since(() => server.call('respond', { instance, answers: answers('3') }));
    const reply = asked.find(({ path }) => path.endsWith('/reply'));
    expect(reply?.body).toEqual({ answer: { where: 'eu-1', count: 3, dry: true, parts: ['a', 'b'] } });
  });

  test('in a form that another client has just settled is not answered again', async () => {
    const { instance, session_id } = await newSession();
    fake.script('ask all', [{ kind: 'form', title: 'Which?', fields: [{ key: 'k', type: 'string' }] }]);
    await server.call('send', { instance, session_id, message: 'ask all' });
    fake.setFault(({ path, method }) => {
      if (method !== 'POST' || !/\/form\/[^/]+\/reply$/.test(path)) return undefined;
      return { answer: { status: 409, body: { _tag: 'FormAlreadySettledError', id: 'frm_1', message: 'settled' } } };
    });
    const late = await server.call('respond', { instance, answers: [['mine']] });
    expect(late.text).toMatch(/does not wait .* any more/);
    fake.setFault(undefined);
    await server.call('abort_session', { instance, session_id });
  });

  test('of a sub-agent is listed as a request of a sub-agent', async () => {
    const { instance, session_id } = await newSession();
    const sent = data(await server.call('send', { instance, session_id, message: 'task: bash: echo deep' }));
    expect(sent).toMatchObject({ outcome: 'waiting' });
    expect((sent['waiting'] as string[])[0]).toMatch(/sub-agent/);
    const whole = await nameOf(undefined);
    expect(data(await server.call('respond', { instance: whole, reply: 'once' }))).toMatchObject({
      outcome: 'completed',
    });
  });
});

describe('a turn', () => {
  test('continues through a compaction, and the summary is not part of its answer', async () => {
    const { instance, session_id } = await newSession();
    const sent = data(await server.call('send', { instance, session_id, message: 'too-long 1: echo: x' }));
    expect(sent).toMatchObject({ outcome: 'completed', text: CONTINUED });
  });

  test('whose model is retried completes or fails', async () => {
    const { instance, session_id } = await newSession();
    const again = { instance, session_id, message: 'fail-times 1 500: better' };
    expect(data(await server.call('send', again))).toMatchObject({ outcome: 'completed', text: 'better' });
    expect(data(await server.call('send', { instance, session_id, message: 'fail 500' }))).toMatchObject({
      outcome: 'failed',
    });
  });

  test('whose model is retried for a long time is shown as retrying', async () => {
    const { instance, session_id } = await newSession();
    fake.script('try long', [
      { kind: 'retry', message: 'the model is overloaded', status: 529 },
      { kind: 'gate', name: 'try' },
      { kind: 'say', chunks: ['at last'] },
    ]);
    await server.call('send_message', { instance, session_id, message: 'try long', async: true });
    await fake.model.waitForGate('try');
    const running = await server.call('wait', { instances: [instance], session_id, timeout_seconds: 1 });
    const refused = await server.call('send', { instance, session_id, message: 'echo: x' });
    fake.model.release('try');
    await server.call('wait', { instances: [instance], session_id });
    for (const { text } of [running, refused]) expect(text).toContain('the model is overloaded');
  });

  test('whose session is deleted has failed', async () => {
    const { instance, session_id } = await newSession();
    const sending = server.call('send', { instance, session_id, message: 'gate gone: never' });
    await fake.model.waitForGate('gone');
    expect((await fake.api(`/api/session/${session_id}`, { method: 'DELETE' })).status).toBe(204);
    expect(data(await sending)).toMatchObject({ outcome: 'failed', reason: 'the session was deleted' });
  });

  test('with an agent waits for a cold directory, which lists no agents at first', async () => {
    const { instance, session_id } = await newSession();
    let asked = 0;
    fake.setFault(({ path }) => {
      if (path !== '/api/agent' || (asked += 1) > 2) return undefined;
      const location = { directory: app, project: { id: 'global', directory: app } };
      return { answer: { status: 200, body: { location, data: [] } } };
    });
    const sent = await server.call('send', { instance, session_id, message: 'echo: warm', agent: 'plan' });
    expect(data(sent), sent.text).toMatchObject({ outcome: 'completed', text: 'warm' });
  });

  test('without text completes, even after a message whose id a client chose', async () => {
    const { instance, session_id } = await newSession();
    await fake.json('POST', `/api/session/${session_id}/prompt`, { id: 'msg_mine', text: 'echo: other' });
    await server.call('wait', { instances: [instance], session_id });
    fake.session(session_id).messages.splice(1);
    fake.script('nothing', []);
    expect(data(await server.call('send', { instance, session_id, message: 'nothing' }))).toMatchObject({
      outcome: 'completed',
      text: '',
    });
  });

  test('after a manual compaction is idle', async () => {
    const { instance, session_id } = await newSession();
    await server.call('send', { instance, session_id, message: 'echo: hi' });
    await fake.json('POST', `/api/session/${session_id}/compact`, {});
    await server.call('wait', { instances: [instance], session_id });
    const { session } = data(await server.call('read', { instance, session_id }));
    expect(session).toMatchObject({ state: 'idle' });
  });

  test('is followed over a restart of the service, and does not count as aborted', async () => {
    const { instance, session_id } = await newSession();
    const sending = server.call('send', { instance, session_id, message: 'gate stop: never' });
    await fake.model.waitForGate('stop');
    await fake.stop();
    await fake.restart();
    const sent = await sending;
    expect(data(sent), sent.text).toMatchObject({ outcome: 'completed', text: RESUMED_REPLY });
    expect(prompts(session_id)).toEqual(['gate stop: never']);
  });

  test('queued by another client is not followed', async () => {
    const { instance, session_id } = await newSession();
    const sending = server.call('send', { instance, session_id, message: 'gate mine: mine' });
    await fake.model.waitForGate('mine');
    await fake.json('POST', `/api/session/${session_id}/prompt`, { text: 'gate other: other', delivery: 'queue' });
    fake.model.release('mine');
    expect(data(await sending)).toMatchObject({ outcome: 'completed', text: 'mine' });
    await fake.model.waitForGate('other');
    fake.model.release('other');
  });
});

test('a killed service is offline in the next listing, and listed again after its restart', async () => {
  await rows();
  await fake.kill9();
  expect(new Set((await rows()).map(({ state }) => state))).toEqual(new Set(['offline']));
  await fake.restart();
  expect(new Set((await rows()).map(({ state }) => state))).not.toContain('offline');
});

test('an answer that does not match the contract is logged once over several surveys, with its route and field', async () => {
  const { instance, session_id } = await newSession();
  await server.call('send', { instance, session_id, message: 'bash: echo wait' });
  fake.setFault(({ path }) =>
    path.endsWith('/permission') ? { answer: { status: 200, body: { data: [{ id: 'per_1' }] } } } : undefined,
  );
  await rows();
  await rows();
  fake.setFault(undefined);
  const reports = server.stderr
    .join('\n')
    .split('\n')
    .filter((line) => line.includes('please report it'));
  expect(reports).toEqual([
    expect.stringContaining(`GET /api/session/${session_id}/permission: unexpected answer at data.0.sessionID`),
  ]);
  await server.call('abort_session', { instance, session_id });
});

test('get_diff shows the changes of a session', async () => {
  const { instance, session_id } = await newSession();
  await server.call('send', { instance, session_id, message: 'echo: changed' });
  fake.session(session_id).diff = [
    {
      file: 'a.txt',
      patch: '--- a/a.txt\n+++ b/a.txt\n@@ -0,0 +1 @@\n+new\n',
      additions: 1,
      deletions: 0,
      status: 'added',
    },
  ];
  expect((await server.call('get_diff', { instance, session_id })).text).toContain('a.txt');
});

test('a stale password or version in the service file causes an error that names the service', async () => {
  const instance = await nameOf(undefined);
  const stateDir = join(fake.home, '.local', 'state', 'opencode');
  const { url, pid, version } = fake;
  await writeFile(join(stateDir, 'service.json'), JSON.stringify({ url, pid, version, password: 'old' }), {
    mode: 0o600,
  });
  await rows('refresh_instances');
  const sent = await server.call('send', { instance, session_id: 'ses_1', message: 'echo: x' });
  expect(sent.text).toMatch(/refused the password.*run opencode service restart.*nothing was sent/);
  await writeFile(
    join(stateDir, 'service.json'),
    JSON.stringify({ url, pid, version: '2.0.9', password: fake.password }),
  );
  expect((await server.call('refresh_instances', {})).text).toContain(
    `names process ${pid} of version 2.0.9, but process ${pid} of version ${version} answers`,
  );
  await fake.register(stateDir);
  expect((await rows('refresh_instances')).length).toBeGreaterThan(1);
});
