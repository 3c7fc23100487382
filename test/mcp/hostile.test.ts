import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';

import { ElicitRequestSchema, LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';

import { CleanStdio } from '../../src/mcp/clean-stdio.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';
import { CONNECTED_SCRIPT } from '../rig/programs/connected-child.ts';
import { FAKE_ROUTES, type FakeRoute, type Override } from '../rig/fake/fake-http.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { EVIL, EVIL_LINE, SAYS, stringsIn, unquotedIn, unsafeIn } from '../rig/hostile-words.ts';
import { SERVER_SCRIPT, startMcpChild } from '../rig/programs/mcp-child.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { enveloped, FORMS, TASKS_AND_FORMS } from './modern/modern-client.ts';
import { startRawServer } from './raw-server.ts';

type Args = Readonly<Record<string, unknown>>;

/** Fields with our own sentences; all other fields hold only remote text. */
const SENTENCES = new Set(['reason', 'next', 'note', 'notes', 'settled', 'waiting', 'outcome', 'via', 'also']);

/** Forms that the server has shown to the user. */
const forms: unknown[] = [];
const temp = tempDir('opencode-mcp-hostile');
const registry = await openRegistry(`${temp.path}/registry\u202e\u009b2J`);
const evil = await startFakeOpencode({
  directory: `/${EVIL}`,
  version: `1.18.33-${SAYS}`,
  reply: (text) => (text === 'run' ? undefined : EVIL),
});
await registry.add(
  { name: `evil${EVIL}`, hostname: `host${EVIL}`, port: evil.port, localPort: evil.port, cwd: evil.directory },
  { file: `evil ${SAYS}\u001b[2J\u202e.json` },
);
await registry.writeRaw(`broken ${EVIL_LINE}.json`, '{');
const server = await startMcpChild({
  args: ['--registry-dir', registry.path, '--health-timeout-ms', '15000', '--log-level', 'debug'],
  env: { SEND_TIMEOUT_MS: '2500' },
  capabilities: { elicitation: { form: {} } },
  prepare: (client) => {
    client.setNotificationHandler(LoggingMessageNotificationSchema, () => {});
    client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
      forms.push(params);
      return { action: 'decline' };
    });
  },
});
await server.client.setLoggingLevel('debug');

beforeEach(reset);
afterAll(async () => {
  await server.close();
  await evil.close();
  await temp.close();
});

function reset(): void {
  for (const collection of ['sessions', 'statuses', 'permissions', 'questions'] as const)
    evil.state[collection].clear();
  for (const route of FAKE_ROUTES) evil.override(route, undefined);
}

let checkedLines = 0;

/** Checks everything that the server has written since the last check: no control characters, and no remote text that passes for ours. */
function checkAll(): void {
  const messages = server.stdout.slice(checkedLines).map((line) => JSON.parse(line) as Args);
  checkedLines = server.stdout.length;
  for (const message of messages) {
    for (const [key, text] of stringsIn(message)) expect(unsafeIn(text), key).toBe(undefined);
    const whole = (message['result'] ?? {}) as Record<string, object>;
    // A task has a result, questions and a status message.
    const { statusMessage = '', inputRequests = {}, result = whole } = whole;
    const { content = [], contents = [], structuredContent = {} } = result as Record<string, object>;
    for (const [key, text] of stringsIn([statusMessage, inputRequests])) expect(unquotedIn(text), key).toEqual([]);
    // Progress, and the fields that are not in SENTENCES, hold only the instance's text.
    const sentences = stringsIn(structuredContent).filter(([key]) => SENTENCES.has(key));
    for (const [key, text] of [...stringsIn([content, contents, message['error'] ?? '']), ...sentences])
      if (key !== 'uri') expect(unquotedIn(text), key).toEqual([]);
  }
  for (const line of server.stderr) {
    expect(unsafeIn(line)).toBe(undefined);
    expect(line.startsWith(SAYS)).toBe(false);
  }
}

async function call(name: string, args: Args = {}): Promise<string> {
  const { text } = await server.call(name, args);
  expect(unsafeIn(text), name).toBe(undefined);
  expect(unquotedIn(text), name).toEqual([]);
  checkAll();
  return text;
}

const AT = { instance: 'evil' };

/** Sends a request of protocol version 2026-07-28 on the same connection; returns its result. */
async function callModern(method: string, params: Args, capabilities: Args = {}): Promise<Args> {
  modernId += 1;
  const id = `modern ${modernId}`;
  const meta = { 'io.modelcontextprotocol/logLevel': 'debug', progressToken: id };
  server.write(
    `${JSON.stringify({ jsonrpc: '2.0', id, method, params: enveloped(params, { capabilities, meta }) })}\n`,
  );
  const answer = await until(`the answer to ${method}`, () =>
    server.stdout
      .slice(checkedLines)
      .map((line) => JSON.parse(line) as Args)
      .find((message) => message['id'] === id),
  );
  checkAll();
  return (answer['result'] ?? answer) as Args;
}
let modernId = 0;

/** One call of each tool that has something to show. */
const CALLS: Readonly<Record<string, (sessionId: string, messageId: string) => Args>> = {
  instances: () => ({}),
  list_instances: () => ({}),
  refresh_instances: () => ({}),
  send: (session_id) => ({ ...AT, session_id, message: 'x' }),
  send_message: (session_id) => ({ ...AT, session_id, message: 'x' }),
  read: (session_id) => ({ ...AT, session_id }),
  get_session: (session_id) => ({ ...AT, session_id }),
  respond: () => ({ ...AT, reply: 'reject' }),
  wait: () => ({ instances: ['evil'], timeout_seconds: 1 }),
  list_sessions: () => AT,
  create_session: () => AT,
  get_status: () => AT,
  abort_session: (session_id) => ({ ...AT, session_id }),
  fork_session: (session_id) => ({ ...AT, session_id }),
  rename_session: (session_id) => ({ ...AT, session_id, title: 'x' }),
  delete_session: (session_id) => ({ ...AT, session_id }),
  get_diff: (session_id) => ({ ...AT, session_id }),
  list_files: () => AT,
  read_file: () => ({ ...AT, path: 'f' }),
  search: () => ({ ...AT, query: 'needle' }),
};

const HOSTILE_PERMISSION = {
  permission: EVIL,
  patterns: [EVIL],
  always: [EVIL],
  metadata: { command: EVIL, diff: EVIL },
};

/** Adds files whose names and lines are hostile, and a hostile agent. */
function addHostileFiles(): void {
  evil.state.files.set('f', EVIL).set(`f${EVIL}`, `needle ${EVIL}`).set('needle', `needle ${EVIL_LINE}`);
  evil.override('GET /agent', { kind: 'answer', body: [{ name: EVIL, mode: 'primary' }] });
}

/** Adds a session in which every string is hostile. */
function addHostileSession(): { readonly id: string; readonly messageId: string } {
  const session = evil.addSession({ title: EVIL, directory: evil.directory });
  const question = evil.state.ask(session.id, EVIL);
  evil.state.begin(session.id, EVIL);
  evil.state.finish(session.id, EVIL);
  const all = evil.state.messages.get(session.id) ?? [];
  const answer = all.at(-1);
  if (answer === undefined) throw new Error('no answer');
  const diffs = [{ file: EVIL, patch: EVIL, additions: 1, deletions: 1, status: 'modified' }];
  all[0] = { ...question, info: { ...question.info, summary: { title: EVIL, diffs } } };
  const part = { sessionID: session.id, messageID: answer.info.id, type: 'tool', callID: EVIL, tool: EVIL };
  all[all.length - 1] = {
    info: { ...answer.info, agent: EVIL, modelID: EVIL, providerID: EVIL, finish: EVIL },
    parts: [
      ...answer.parts,
      {
        ...part,
        id: 'prt_1',
        state: { status: EVIL, title: EVIL, input: { command: EVIL }, error: EVIL, output: EVIL },
      },
      { ...part, id: 'prt_2', state: { status: 'error', input: { command: EVIL }, error: EVIL } },
    ],
  };
  const failed = { name: EVIL, data: { message: EVIL } };
  all.push({
    info: { ...answer.info, id: `${answer.info.id.slice(0, -1)}~`.replace('~', 'z'), error: failed },
    parts: [],
  });
  return { id: session.id, messageId: question.info.id };
}

describe('text of a hostile opencode', () => {
  test('CALLS has a call for every tool', () => {
    expect(Object.keys(CALLS).toSorted()).toEqual(TOOLS.map(({ name }) => name).toSorted());
  });

  test.each(Object.keys(CALLS))(
    'the result of %s is clean for an idle, a busy, a waiting and a retrying session',
    async (name) => {
      addHostileFiles();
      const { id, messageId } = addHostileSession();
      await call(name, CALLS[name]?.(id, messageId));
      const again = addHostileSession();
      evil.state.begin(again.id, 'run');
      evil.state.say(again.id, EVIL);
      evil.addPermission({ sessionID: again.id, ...HOSTILE_PERMISSION });
      const option = { label: EVIL, description: EVIL };
      evil.addQuestion({ sessionID: again.id, questions: [{ question: EVIL, header: EVIL, options: [option] }] });
      await call(name, CALLS[name]?.(again.id, again.messageId));
      evil.state.permissions.clear();
      evil.state.questions.clear();
      evil.state.statuses.set(again.id, { type: 'retry', attempt: 2, message: EVIL, next: 0 });
      await call('instances');
      await call(name, CALLS[name]?.(again.id, again.messageId));
    },
  );

  test.each(Object.keys(CALLS))(
    'the 2026-07-28 result of %s is clean for an idle session, and for a busy one as a task that asks',
    async (name) => {
      addHostileFiles();
      const idle = addHostileSession();
      await callModern('tools/call', { name, arguments: CALLS[name]?.(idle.id, idle.messageId) });
      const { id, messageId } = addHostileSession();
      evil.state.begin(id, 'run');
      const permission = evil.addPermission({ sessionID: id, ...HOSTILE_PERMISSION });
      // Without `reply`, so that the server asks the user instead of taking the model's answer.
      const args = name === 'respond' ? { ...AT, request_id: permission.id } : CALLS[name]?.(id, messageId);
      const first = await callModern('tools/call', { name, arguments: args }, TASKS_AND_FORMS);
      if (first['resultType'] === 'task') {
        const { taskId } = first;
        const shown = await until('the task to end or to ask', async () => {
          const task = await callModern('tasks/get', { taskId }, TASKS_AND_FORMS);
          return task['status'] === 'working' ? undefined : task;
        });
        if (name === 'respond') expect(shown['status']).toBe('input_required');
        await callModern('tasks/cancel', { taskId }, TASKS_AND_FORMS);
      }
      if (name === 'respond')
        expect(await callModern('tools/call', { name, arguments: args }, FORMS)).toMatchObject({
          resultType: 'input_required',
        });
    },
  );

  test('the progress of send is clean even if escape sequences arrive in pieces, and so is the result of every outcome', async () => {
    for (const end of ['finish', 'retry', 'permission', 'question', 'error', 'limit'] as const) {
      const { id } = evil.addSession({ title: EVIL });
      let begun = false;
      const sending = server.call(
        'send',
        { ...AT, session_id: id, message: 'run' },
        { onProgress: () => (begun = true) },
      );
      await until('the prompt', () => evil.state.prompts.at(-1)?.sessionID === id);
      evil.state.say(id, 'a \u001b');
      await until('the first words', () => begun);
      for (const piece of ['[31mred\u001b]0;ti', 'tle\u0007 \u009b', '2J\ud83d', '\ude00 \r', '\nb', EVIL])
        evil.state.say(id, piece);
      if (end === 'finish') evil.state.finish(id, EVIL);
      if (end === 'retry') evil.state.statuses.set(id, { type: 'retry', attempt: 2, message: EVIL, next: 0 });
      if (end === 'permission') evil.addPermission({ sessionID: id, permission: EVIL, patterns: [EVIL] });
      if (end === 'question') evil.addQuestion({ sessionID: id });
      if (end === 'error') {
        const all = evil.state.messages.get(id) ?? [];
        const last = all.at(-1);
        if (last === undefined) throw new Error('no answer');
        all[all.length - 1] = { ...last, info: { ...last.info, error: { name: EVIL, data: { message: EVIL } } } };
        evil.state.statuses.delete(id);
        evil.emit('session.idle', { sessionID: id });
      }
      const { text, progress } = await sending;
      expect(unquotedIn(text), end).toEqual([]);
      const streamed = progress.map(({ message = '' }) => message).join('');
      expect(streamed, end).toMatch(/^a red 😀 \nb/);
      reset();
    }
    checkAll();
  });

  test('each line of progress of a send to several instances names its instance', async () => {
    await using good = await startFakeOpencode({ directory: '/home/user/good' });
    await registry.add({ name: 'good', port: good.port, cwd: good.directory });
    await call('refresh_instances');
    const session = evil.addSession({ title: 'Good' });
    const sending = server.call('send', { instance: ['evil', 'good'], message: 'run' });
    await until('both prompts', () => good.state.prompts.length === 1 && evil.state.statuses.size === 1);
    evil.state.say(session.id, 'begun\r');
    evil.state.finish(session.id, `\n[good] ${SAYS}\u2028[good] done`);
    good.state.finish(good.state.prompts[0]?.sessionID ?? '', 'fine');
    const streamed = (await sending).progress.map(({ message = '' }) => message).join('');
    expect(streamed).toContain('[good] fine');
    for (const line of streamed.split('\n')) expect(line).toMatch(/^\[good\] fine$|^\["evil/);
    await registry.remove('good');
    checkAll();
  });

  test('the agents and models that an error of send lists are clean', async () => {
    evil.override('GET /agent', { kind: 'answer', body: [{ name: EVIL, mode: 'primary' }, { name: SAYS }] });
    const providers = [{ id: EVIL, models: { [EVIL]: {}, [SAYS]: {} } }];
    evil.override('GET /config/providers', { kind: 'answer', body: { providers } });
    await call('send', { ...AT, message: 'x', agent: 'nobody' });
    await call('send', { ...AT, message: 'x', model: 'no/thing' });
  });

  const ERRORS: Readonly<Record<string, Omit<Extract<Override, { kind: 'answer' }>, 'kind'>>> = {
    'an error message': { status: 500, body: { name: 'UnknownError', data: { message: EVIL } } },
    'the name of an error': { status: 400, body: { name: EVIL } },
    'an error in plain text': { status: 503, body: EVIL, headers: { 'content-type': 'text/plain' } },
    'a refusal of a proxy': { status: 403, body: EVIL, headers: { 'proxy-status': 'x; error=http_request_denied' } },
    'a content type': { body: '{}', headers: { 'content-type': `\u009b2J${SAYS}` } },
    'a redirect': { status: 302, body: '', headers: { location: `http://${SAYS}/\u009b` } },
    'keys of another form': { body: { [EVIL]: EVIL, [SAYS]: { type: SAYS } } },
    'no JSON': { body: EVIL, headers: { 'content-type': 'application/json' } },
  };
  const ROUTES: readonly FakeRoute[] = [
    'GET /session',
    'GET /session/status',
    'GET /session/:id/message',
    'GET /permission',
    'GET /question',
    'POST /session/:id/prompt_async',
    'GET /config/providers',
    'GET /path',
    'GET /global/health',
    'GET /file',
    'GET /event',
  ];
  test.each(Object.entries(ERRORS))(
    'the result of any request is clean if opencode answers with %s',
    async (_, { status = 200, ...answer }) => {
      const { id } = addHostileSession();
      for (const route of ROUTES) {
        evil.override(route, { kind: 'answer', status, ...answer });
        for (const name of ['read', 'list_sessions', 'get_status', 'list_files', 'list_instances'] as const)
          await call(name, CALLS[name]?.(id, ''));
        // If the server cannot know whether a message arrived, it searches for the message for some seconds.
        const isSent = route === 'GET /event' || (route === 'POST /session/:id/prompt_async' && status >= 400);
        if (isSent) await call('send', { ...AT, session_id: id, message: 'x' });
        if (route === 'GET /config/providers') await call('send', { ...AT, message: 'x', model: 'a/b' });
        evil.override(route, undefined);
        evil.state.statuses.clear();
      }
    },
  );
});

describe('invalid ids of a hostile opencode', () => {
  const BAD = [
    `ses_1${EVIL}`,
    'ses_1\n',
    'ses_\u001b[2J',
    `ses_1 ${SAYS}`,
    'ses_ä',
    '',
    `ses_${'x'.repeat(300)}`,
    '../x',
  ];

  test('a session with an invalid id is left out, and hides no other session', async () => {
    const good = evil.addSession({ title: 'Good' });
    for (const id of BAD) evil.addSession({ id, title: EVIL });
    const text = await call('list_sessions', AT);
    expect(text).toContain(`${good.id} "Good"`);
    expect(text).toMatch(/^1 sessions/);
    await call('read', { ...AT, session_id: good.id });
    await call('instances');
  });

  test('an answer with only invalid session ids is refused, and no session is created', async () => {
    evil.addSession({ id: BAD[0] ?? '', title: EVIL });
    for (const name of ['list_sessions', 'read', 'send'])
      expect(await call(name, { ...AT, ...(name === 'send' && { message: 'x' }) })).toMatch(/unexpected answer/);
    expect(evil.state.sessions.size).toBe(1);
  });

  const cursor = (value: string) => (id: string) =>
    evil.override('GET /session/:id/message', {
      kind: 'answer',
      headers: { 'x-next-cursor': value },
      body: evil.state.messages.get(id) ?? [],
    });
  const busy = (sessionID: string) => evil.state.statuses.set(sessionID, { type: 'busy' });
  test.each<[string, (sessionId: string) => unknown, readonly string[]]>([
    [
      'an invalid permission id',
      (sessionID) => [busy(sessionID), evil.addPermission({ id: `per_1${EVIL}`, sessionID })],
      ['get_status', 'respond', 'read'],
    ],
    [
      'an invalid question id',
      (sessionID) => [busy(sessionID), evil.addQuestion({ id: `que_1${EVIL}`, sessionID })],
      ['get_status', 'respond', 'read'],
    ],
    ['a status of an invalid session id', (id) => busy(`${id}${EVIL}`), ['get_status', 'send', 'delete_session']],
    [
      'invalid message ids',
      (id) => evil.state.messages.get(id)?.forEach(({ info }) => Object.assign(info, { id: `msg_1${EVIL}` })),
      ['read', 'get_diff'],
    ],
    ['a cursor with a control character', cursor('\u009b2J'), ['read', 'get_diff']],
    ['a cursor of several words', cursor(`a ${SAYS}`), ['read', 'get_diff']],
    ['a long cursor', cursor('x'.repeat(3_000)), ['read', 'get_diff']],
  ])('an answer with %s is refused', async (_, spoil, names) => {
    const { id } = addHostileSession();
    const sent = evil.count('POST /session/:id/prompt_async');
    spoil(id);
    for (const name of names) expect(await call(name, CALLS[name]?.(id, '')), name).toMatch(/unexpected answer/);
    await call('instances');
    expect(evil.count('POST /session/:id/prompt_async')).toBe(sent);
    expect(evil.state.sessions.has(id)).toBe(true);
  });

  test('an instance with invalid times does not break the list of instances', async () => {
    evil.addSession({ title: 'Good', time: { created: 1e300, updated: 1e300 } });
    await using good = await startFakeOpencode();
    await registry.add({ name: 'other', port: good.port, cwd: good.directory });
    expect(await call('refresh_instances')).toContain('other: idle');
    expect(await call('instances')).toContain('other: idle');
    expect(await call('list_sessions', AT)).toMatch(/unexpected answer/);
    await server.client.listResources();
    await registry.remove('other');
    // Later tests list all instances.
    await until('`other` to leave the list', async () => !(await call('refresh_instances')).includes('other'));
  });
});

describe('other outputs', () => {
  test('CleanStdio cleans results, errors, notifications and forms, but no id or token of the client', async () => {
    const stdout = new PassThrough();
    const transport = new CleanStdio(new PassThrough(), stdout);
    transport.start({ onMessage: () => {}, onTooLong: () => {} });
    const params = { text: EVIL, deep: [{ [EVIL]: EVIL }] };
    const subscription = { 'io.modelcontextprotocol/subscriptionId': EVIL };
    const messages = [
      { id: EVIL, result: params },
      { id: 1, error: { code: -1, message: EVIL, data: params } },
      { method: 'notifications/message', params: { ...params, _meta: subscription } },
      { method: 'notifications/progress', params: { ...params, progressToken: EVIL } },
      { id: 2, method: 'elicitation/create', params },
      { id: 3, method: 'ping' },
    ];
    for (const message of messages) await transport.send({ jsonrpc: '2.0', ...message });
    transport.close();
    stdout.end();
    const lines = (await text(stdout)).trimEnd().split('\n');
    const sent = lines.map((line) => JSON.parse(line) as Args);
    expect(sent).toHaveLength(messages.length);
    // The client's own ids and tokens come back unchanged.
    expect(sent[0]?.['id']).toBe(EVIL);
    expect(sent[2]).toMatchObject({ params: { _meta: subscription } });
    expect(sent[3]).toMatchObject({ params: { progressToken: EVIL } });
    const clientKeys = new Set(['id', 'progressToken', ...Object.keys(subscription)]);
    for (const [key, text] of stringsIn(sent)) if (!clientKeys.has(key)) expect(unsafeIn(text), key).toBe(undefined);
  });

  test('resources, prompts and completions are clean', async () => {
    const { id } = addHostileSession();
    const { client } = server;
    await call('instances');
    const { resources } = await client.listResources();
    for (const { uri } of resources) await client.readResource({ uri });
    await expect(
      client.readResource({ uri: `opencode://evil/sessions/${encodeURIComponent(`none ${EVIL}`)}` }),
    ).rejects.toThrow();
    const prompts = (await client.listPrompts()).prompts;
    for (const { name, arguments: promptArguments = [] } of prompts)
      await client.getPrompt({
        name,
        arguments: Object.fromEntries(promptArguments.map((argument) => [argument.name, EVIL])),
      });
    const ref = { type: 'ref/resource', uri: 'opencode://{instance}/sessions/{id}' } as const;
    const names = await client.complete({ ref, argument: { name: 'instance', value: 'ev' } });
    const [instance = ''] = names.completion.values;
    expect(instance).toContain('evil');
    const context = { arguments: { instance } };
    const ids = await client.complete({ ref, argument: { name: 'id', value: 'ses' }, context });
    expect(ids.completion.values).toContain(id);
    checkAll();
  });

  test('the frames, titles and labels of a form are clean', async () => {
    const { id } = addHostileSession();
    // Earlier sends and waits have shown forms too.
    const before = forms.length;
    evil.state.begin(id, 'run');
    const permission = evil.addPermission({ sessionID: id, ...HOSTILE_PERMISSION });
    await call('respond', { ...AT, request_id: permission.id });
    const options = [EVIL, SAYS].map((label) => ({ label, description: label }));
    const questions = [{ question: EVIL, header: EVIL, options }];
    const question = evil.addQuestion({ sessionID: id, questions });
    await call('respond', { ...AT, request_id: question.id });
    expect(forms).toHaveLength(before + 2);
    for (const [key, text] of stringsIn(forms)) expect(unquotedIn(text), key).toEqual([]);
  });

  test.each([
    ['opencode-mcp list', SERVER_SCRIPT, ['list']],
    ['opencode-mcp list --json', SERVER_SCRIPT, ['list', '--json']],
    ['opencode-mcp sessions', SERVER_SCRIPT, ['sessions', 'evil']],
    ['opencode-mcp read', SERVER_SCRIPT, ['read', 'evil']],
    ['opencode-mcp send', SERVER_SCRIPT, ['send', 'evil', 'hostile?']],
    ['opencode-mcp wait --json', SERVER_SCRIPT, ['wait', 'evil', '--timeout', '1', '--json']],
    ['opencode-connected status', CONNECTED_SCRIPT, ['status']],
    ['opencode-connected status --json', CONNECTED_SCRIPT, ['status', '--json']],
    ['opencode-connected sessions', CONNECTED_SCRIPT, ['sessions']],
    ['opencode-connected sessions --json', CONNECTED_SCRIPT, ['sessions', '--json']],
    ['opencode-connected cleanup', CONNECTED_SCRIPT, ['cleanup', '--dry-run']],
  ])('the output of %s is clean', async (_, script, args) => {
    const { id } = addHostileSession();
    evil.addSession({ id: `ses_1${EVIL}`, title: EVIL });
    evil.state.statuses.set(id, { type: 'retry', attempt: 1, message: EVIL, next: 0 });
    await registry.add({ name: `dead${EVIL}`, port: 1, cwd: EVIL }, { file: `dead ${EVIL_LINE}.json` });
    await using program = startRawServer({ script, args, env: { RELAY_REGISTRY_DIR: registry.path } });
    program.endInput();
    await program.exited;
    const out = [...program.stdout, program.rest, program.stderr].join('\n');
    expect(out).toMatch(/evil|hostile|Ignore this|GET \/session/);
    expect(unsafeIn(out)).toBe(undefined);
    if (args.includes('--json'))
      for (const [, text] of stringsIn(JSON.parse(out.slice(out.indexOf('{'))))) expect(unsafeIn(text)).toBe(undefined);
    for (const line of out.split('\n')) expect(line.trimStart().startsWith(SAYS), line).toBe(false);
    await registry.remove(`dead ${EVIL_LINE}`);
  });
});
