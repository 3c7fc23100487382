import { afterAll, describe, expect, test } from 'vitest';

import { describeBadInput, readArguments } from '../../src/mcp/tools/arguments.ts';
import { listTool } from '../../src/mcp/tools/listing.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';
import { HANDSHAKE, type RawAnswer, startRawServer } from './raw-server.ts';
import { openWorker } from './worker.ts';

type Data = Readonly<Record<string, unknown>>;

const scene = await openWorker({ reply: (text) => `re: ${text}` });
const server = startRawServer({ args: scene.args });
server.write(...HANDSHAKE);
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await scene.close();
});

/** The tool's input, or why it is refused. */
function read(name: string, rawArgs: Data): Data | string {
  const tool = TOOLS.find((one) => one.name === name);
  if (tool === undefined) throw new Error(`no tool ${name}`);
  const args = readArguments(listTool(tool).inputSchema.properties ?? {}, rawArgs);
  const input = tool.input.safeParse(args);
  return input.success ? input.data : describeBadInput(name, tool.input, args, input.error);
}

const WAIT = { for: 'any' };
const SEND = { instance: 'a', message: 'x' };

const ACCEPTED: readonly (readonly [string, Data, Data])[] = [
  // Empty values count as missing.
  ...['', null, undefined].map(
    (nothing) =>
      [
        'send',
        { ...SEND, abort: nothing, session_id: nothing, when_busy: nothing, agent: nothing, request_id: nothing },
        SEND,
      ] as const,
  ),
  ['send', { ...SEND, abort: ' ', when_busy: 'null' }, SEND],
  ['wait', { instances: '', session_id: null, for: '', timeout_seconds: '' }, WAIT],
  ['wait', { instances: [], timeout_seconds: ' ' }, WAIT],
  ['wait', { instances: 'null' }, WAIT],
  ['wait', { instances: ['', null] }, WAIT],
  ['respond', { instance: 'a', reply: '', message: '', answers: '' }, { instance: 'a' }],
  ['respond', { instance: 'a', answers: [] }, { instance: 'a' }],
  ['instances', { match: '', offset: '', limit: null }, { offset: 0 }],
  // Numbers.
  ...['5', ' 5 ', '5.0', 5, 5.0].map(
    (five) => ['wait', { timeout_seconds: five }, { ...WAIT, timeout_seconds: 5 }] as const,
  ),
  ['read', { instance: 'a', message_limit: '3', offset: '0' }, { instance: 'a', message_limit: 3, offset: 0 }],
  // Booleans.
  ...['true', 'True', ' TRUE ', 1, '1', true].map(
    (yes) => ['send', { ...SEND, abort: yes }, { ...SEND, abort: true }] as const,
  ),
  ...['false', 'False', 0, '0', false].map(
    (no) => ['send', { ...SEND, abort: no }, { ...SEND, abort: false }] as const,
  ),
  // Choices.
  ['send', { ...SEND, when_busy: ' Queue' }, { ...SEND, when_busy: 'queue' }],
  // Lists.
  ['send', { ...SEND, instance: '["alpha","beta"]' }, { ...SEND, instance: ['alpha', 'beta'] }],
  ['send', { ...SEND, instance: ['alpha', null, ''] }, { ...SEND, instance: ['alpha'] }],
  ['wait', { instances: '["alpha","beta"]' }, { ...WAIT, instances: ['alpha', 'beta'] }],
  ['wait', { instances: 'alpha' }, { ...WAIT, instances: ['alpha'] }],
  ['wait', { instances: ['alpha', null, '', 'beta', 7] }, { ...WAIT, instances: ['alpha', 'beta', '7'] }],
  ...[['Blue'], [['Blue']], 'Blue', '"Blue"', '["Blue"]', '[["Blue"]]', ['["Blue"]'], [['Blue', '', null]]].map(
    (answers) => ['respond', { instance: 'a', answers }, { instance: 'a', answers: [['Blue']] }] as const,
  ),
  [
    'respond',
    { instance: 'a', answers: ['Blue', ['Red', 'Green'], 5] },
    { instance: 'a', answers: [['Blue'], ['Red', 'Green'], ['5']] },
  ],
  // An answer to the second question stays the second.
  ['respond', { instance: 'a', answers: [null, 'Blue', ''] }, { instance: 'a', answers: [[], ['Blue'], []] }],
  // Strings stay strings, even if they look like JSON.
  ...['["a"]', '5', 'null', 'true', '{"a":1}', '"x"', ' x ', '[', '[]'].map(
    (message) =>
      [
        'send',
        { instance: 'a', message, session_id: message },
        { instance: 'a', message, session_id: message },
      ] as const,
  ),
  ['send', { instance: 'null', message: 'x' }, { instance: 'null', message: 'x' }],
  [
    'respond',
    { instance: 'a', answers: [['["Blue"]', 'null', '5']] },
    { instance: 'a', answers: [['["Blue"]', 'null', '5']] },
  ],
  ['create_session', { instance: 'a', title: '["a"]' }, { instance: 'a', title: '["a"]' }],
  ['search', { instance: 'a', query: 404, names: 'false' }, { instance: 'a', query: '404', names: false }],
  ['create_session', { instance: 'a', title: '' }, { instance: 'a' }],
  ['abort_session', { instance: 'a', session_id: '' }, { instance: 'a' }],
  // n8n.
  [
    'send',
    { ...SEND, toolCallId: 'call_1', sessionId: 'ses_00000001', action: 'sendMessage', chatInput: 'hello' },
    SEND,
  ],
  ['instances', { toolCallId: 'call_1' }, { offset: 0 }],
  ['instances', { sessionId: '0b1d6c1e', action: 'sendMessage', chatInput: 'hello' }, { offset: 0 }],
  ['instances', { sessionId: { toString: 1 } }, { offset: 0 }],
];

describe('arguments as clients send them', () => {
  test.each(ACCEPTED)('are understood: %s %j', (name, rawArgs, input) => {
    expect(read(name, rawArgs)).toEqual(input);
  });

  test.each<readonly [string, Data, RegExp]>([
    ['send', { ...SEND, sesion_id: 'x' }, /unknown argument "sesion_id".* It takes: instance, message/],
    ['send', { ...SEND, session: 'x', Message: 'y' }, /unknown argument "session", "Message"/],
    ['send', { ...SEND, toolcallid: 'x' }, /unknown argument "toolcallid"/],
    // These are not from n8n's chat, which never sends `sessionId` alone.
    ...['ses_00000001', ' ses_00000001', '"ses_00000001"', ['ses_00000001']].map(
      (sessionId) => ['send', { ...SEND, sessionId }, /unknown argument "sessionId"/] as const,
    ),
    ['send', { message: 'x' }, /^send: instance is missing\./],
    ['send', { instance: '[]', message: 'x' }, /^send: instance is missing\./],
    ['send', { instance: { name: 'a' }, message: 'x' }, /^send: instance: expected text, or a list of 1 to 20 texts\./],
    [
      'send',
      { instance: Array.from({ length: 21 }, () => 'a'), message: 'x' },
      /^send: instance: expected text, or a list of 1 to 20 texts\./,
    ],
    ['send', { ...SEND, when_busy: 'quue' }, /when_busy: Invalid option.*"queue"/],
    ['send', { ...SEND, abort: 'yes please' }, /abort: .*expected boolean/],
    ['send', { ...SEND, abort: 2 }, /abort: .*expected boolean/],
    ['send', { ...SEND, message: ['x'] }, /message: .*expected string, received array/],
    ['read', { instance: ['a'] }, /instance: .*expected string, received array/],
    ['read', { instance: null }, /instance is missing/],
    ['delete_session', { instance: 'a', session_id: '' }, /session_id is missing/],
    ['read', { instance: 'a', message_limit: '5.5' }, /message_limit: .*expected int/],
    ['read', { instance: 'a', message_limit: 'five' }, /message_limit: .*expected number, received string/],
    ['read', { instance: 'a', message_limit: 'true' }, /message_limit: .*expected number, received boolean/],
    ['read', { instance: 'a', message_limit: '500' }, /message_limit: Too big/],
    ['wait', { timeout_seconds: [5] }, /timeout_seconds: .*expected number, received array/],
    ['wait', { instances: [{}] }, /instances\.0: .*expected string, received object/],
    ...[{ 1: 'Blue' }, '{"Which?":"Blue"}', ['{"Which?":"Blue"}'], [{ label: 'Blue' }], [['Blue', ['Red']]]].map(
      (answers) =>
        [
          'respond',
          { instance: 'a', answers },
          /answers\.0\.\d: expected the label of a choice, such as \[\["Red"\]\]/,
        ] as const,
    ),
    ['wait', { instances: '{"name":"a"}' }, /instances\.0: .*expected string, received object/],
  ])('are refused if they do not fit: %s %j', (name, rawArgs, problem) => {
    expect(read(name, rawArgs)).toMatch(problem);
    expect(read(name, rawArgs)).toMatch(/Nothing was done\.$/);
  });

  test.each(['__proto__', 'constructor', 'toString'])('are refused as unknown if they are called %s', (key) => {
    expect(read('instances', JSON.parse(`{"${key}":"x"}`) as Data)).toContain(`unknown argument "${key}"`);
  });
});

describe('on stdio', () => {
  let id = 0;

  async function ask(method: string, params: unknown): Promise<RawAnswer> {
    id += 1;
    server.write({ jsonrpc: '2.0', id, method, params });
    return await server.answerTo(id);
  }

  test.each([null, undefined, '', '{}', 'null', [], '[]', {}].map((rawArgs) => ({ rawArgs })))(
    'calls of tools and prompts accept %j as no arguments',
    async ({ rawArgs }) => {
      // A server that does not support the tasks of 2025-11-25 must ignore `task`.
      const { result } = await ask('tools/call', { name: 'list_instances', arguments: rawArgs, task: { ttl: 60_000 } });
      expect(result).toMatchObject({ structuredContent: { total: 1 } });
      expect((await ask('prompts/get', { name: 'brief_all', arguments: rawArgs })).result).toHaveProperty('messages');
    },
  );

  test('calls accept arguments as a JSON string, and null for missing fields', async () => {
    const args = { instance: 'worker', message: '["a"]', session_id: null, when_busy: '' };
    const { result } = await ask('tools/call', { name: 'send', arguments: JSON.stringify(args) });
    expect(result).toMatchObject({ structuredContent: { outcome: 'completed', text: 're: ["a"]' } });
    expect((await ask('tools/list', { cursor: null })).result).toHaveProperty('tools');
  });

  test.each([null, { _meta: null }, { _meta: { progressToken: null } }, { cursor: null, _meta: { a: { b: null } } }])(
    'a request may have null for any missing field: %j',
    async (params) => {
      expect((await ask('tools/list', params)).result).toHaveProperty('tools');
    },
  );

  test.each<readonly [unknown, RegExp]>([
    ['x', /: params: .*expected object, received string$/],
    [[], /: params: .*expected object, received array$/],
    [{ _meta: 'x' }, /: params\._meta: .*expected object, received string$/],
    [{ _meta: { progressToken: {} } }, /: params\._meta\.progressToken: Invalid input$/],
  ])('an invalid request is answered with an error: params %j', async (params, pattern) => {
    const { error } = await ask('tools/list', params);
    expect(error).toMatchObject({ code: -32_600, message: expect.stringMatching(pattern) });
    expect(server.stderr).not.toContain('"code"');
  });

  test.each<readonly [string, object, RegExp]>([
    ['tools/call', {}, /params\.name: .*expected string/],
    ['tools/call', { name: 5, arguments: {} }, /params\.name: /],
    ['tools/call', { name: 'instances', arguments: 'all' }, /params\.arguments: .*expected object, received string/],
    ['tools/call', { name: 'instances', arguments: ['all'] }, /params\.arguments: /],
    ['prompts/get', { name: 'continue', arguments: { instance: 5 } }, /params\.arguments\.instance: .*expected string/],
    ['resources/read', {}, /params\.uri: /],
    ['completion/complete', { ref: { type: 'ref/tool' } }, /params\.argument: /],
    ['logging/setLevel', { level: 'loud' }, /params\.level: /],
  ])('%s %j is refused with a readable message', async (method, params, pattern) => {
    const { error } = await ask(method, params);
    expect(error).toMatchObject({ code: -32_602, message: expect.stringMatching(pattern) });
    expect(error?.message).not.toMatch(/[[{]|\n/);
  });
});
