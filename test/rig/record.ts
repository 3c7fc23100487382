/**
 * Writes `recorded/<version>/*.json`: what the real opencode answered and broadcast, for unit tests to read.
 * Run again for a new version: `node --import tsx test/rig/record.ts [path of an opencode binary]`.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { tapEvents, type EventTap } from './event-tap.ts';
import { startOpencode, type Opencode } from './opencode.ts';
import { createRealSession, type RealSession } from './real-session.ts';
import { startScriptedModel } from './scripted-model.ts';

interface Scene {
  readonly opencode: Opencode;
  readonly save: (name: string, value: unknown) => Promise<void>;
  readonly tap: EventTap;
  readonly session: RealSession;
}

const SCENES: Readonly<Record<string, (scene: Scene) => Promise<void>>> = {
  'turn-text': (scene) => scene.session.prompt('slow 3 20: tick').then(() => idle(scene)),
  'turn-reasoning': (scene) => scene.session.prompt('reason: Think first|Then answer').then(() => idle(scene)),
  async 'turn-permission-once'(scene) {
    const { opencode, save } = scene;
    await scene.session.prompt('bash: echo recorded');
    const asked = await scene.tap.waitFor('permission.asked');
    await save('get-permission', await opencode.json('GET', '/permission'));
    await save('get-session-status-busy', await opencode.json('GET', '/session/status'));
    await opencode.json('POST', `/permission/${asked.properties.id}/reply`, { reply: 'once' });
    await idle(scene);
    await save(
      'permission-already-answered',
      await answer(opencode, 'POST', `/permission/${asked.properties.id}/reply`, { reply: 'once' }),
    );
  },
  async 'turn-permission-reject'(scene) {
    await scene.session.prompt('bash: echo rejected');
    const asked = await scene.tap.waitFor('permission.asked');
    await scene.opencode.json('POST', `/permission/${asked.properties.id}/reply`, { reply: 'reject' });
    await idle(scene);
  },
  async 'turn-permission-reject-feedback'(scene) {
    await scene.session.prompt('bash: echo feedback');
    const asked = await scene.tap.waitFor('permission.asked');
    await scene.opencode.json('POST', `/permission/${asked.properties.id}/reply`, {
      reply: 'reject',
      message: 'Use printf.',
    });
    await idle(scene);
  },
  async 'turn-question'(scene) {
    const { opencode, save } = scene;
    await scene.session.prompt('ask: Which colour?|Red|Blue');
    const asked = await scene.tap.waitFor('question.asked');
    await save('get-question', await opencode.json('GET', '/question'));
    await opencode.json('POST', `/question/${asked.properties.id}/reply`, { answers: [['Blue']] });
    await idle(scene);
  },
  async 'turn-question-reject'(scene) {
    await scene.session.prompt('ask: Which size?|Small|Large');
    const asked = await scene.tap.waitFor('question.asked');
    await scene.opencode.json('POST', `/question/${asked.properties.id}/reject`, {});
    await idle(scene);
  },
  async 'turn-sub-agent'(scene) {
    await scene.session.prompt('task: bash: echo child');
    const asked = await scene.tap.waitFor('permission.asked');
    await scene.save('get-permission-sub-agent', await scene.opencode.json('GET', '/permission'));
    await scene.opencode.json('POST', `/permission/${asked.properties.id}/reply`, { reply: 'once' });
    await idle(scene);
    await scene.save('get-session-children', await scene.opencode.json('GET', `/session/${scene.session.id}/children`));
  },
  'turn-error-401': (scene) => scene.session.prompt('fail 401').then(() => idle(scene)),
  async 'turn-retry-then-abort'(scene) {
    await scene.session.prompt('fail 500');
    await scene.tap.waitFor('session.status', ({ status }) => status.type === 'retry');
    await scene.save('get-session-status-retry', await scene.opencode.json('GET', '/session/status'));
    await scene.opencode.json('POST', `/session/${scene.session.id}/abort`);
    await idle(scene);
  },
  async 'turn-abort-mid-text'(scene) {
    await scene.session.prompt('gate-mid record-abort: begun |never');
    await scene.tap.waitFor('message.part.delta');
    await scene.save('messages-mid-text', await scene.opencode.json('GET', `/session/${scene.session.id}/message`));
    await scene.opencode.json('POST', `/session/${scene.session.id}/abort`);
    await idle(scene);
  },
  async 'turn-abort-before-text'(scene) {
    await scene.session.prompt('hang record-hang');
    await scene.tap.waitFor('message.updated', ({ info }) => info.role === 'assistant');
    await model.waitForGate('record-hang');
    await scene.session.abort();
    await idle(scene);
  },
  async 'abort-unknown-session'({ opencode, tap }) {
    const unknown = 'ses_000000000000AAAAAAAAAAAAAA';
    await opencode.json('POST', `/session/${unknown}/abort`);
    await tap.waitFor('session.idle', ({ sessionID }) => sessionID === unknown);
  },
  async 'turn-abort-at-permission'(scene) {
    await scene.session.prompt('bash: echo aborted');
    const asked = await scene.tap.waitFor('permission.asked');
    await scene.opencode.json('POST', `/session/${scene.session.id}/abort`);
    await idle(scene);
    await scene.save('get-permission-after-abort', await scene.opencode.json('GET', '/permission'));
    await scene.save(
      'permission-reply-after-abort',
      await answer(scene.opencode, 'POST', `/permission/${asked.properties.id}/reply`, { reply: 'once' }),
    );
    await scene.tap.waitFor('permission.replied');
  },
};

const binary = process.argv[2];
await using model = await startScriptedModel();
await using opencode = await startOpencode({ model, ...(binary === undefined ? {} : { binary }) });
const folder = fileURLToPath(new URL(`recorded/${opencode.version}`, import.meta.url));
await mkdir(folder, { recursive: true });
await record();

async function save(name: string, value: unknown): Promise<void> {
  const root = opencode.home.replace(/\/home$/, '');
  // A list has an element per line: short, and a difference between versions is a line.
  const json = Array.isArray(value)
    ? `[\n${value.map((element) => JSON.stringify(element)).join(',\n')}\n]`
    : JSON.stringify(value, undefined, 2);
  const text = json
    .replaceAll(`${root}/home`, '/home/user')
    .replaceAll(`${root}/project`, '/home/user/project')
    .replaceAll(root, '/home/user/rig')
    .replaceAll(model.url, 'http://127.0.0.1:4099/v1');
  await writeFile(join(folder, `${name}.json`), `${text}\n`);
}

async function record(): Promise<void> {
  // The first turn of a process loads its plugins and says so in some fifty events.
  await using tap = await tapEvents(opencode);
  const first = await createRealSession(opencode);
  await first.prompt('echo: warm');
  await tap.waitFor('session.idle', ({ sessionID }) => sessionID === first.id);
  await opencode.json('DELETE', `/session/${first.id}`);

  for (const [name, play] of Object.entries(SCENES)) await recordScene(name, play);
  await recordAnswers();
  await recordGlobalEvents();
  await recordInterruption();
}

async function recordScene(name: string, play: (scene: Scene) => Promise<void>): Promise<void> {
  const session = await createRealSession(opencode, name);
  await using tap = await tapEvents(opencode);
  await play({ opencode, save, tap, session });
  await save(`${name}.events`, tap.events);
  const messages = await session.messages();
  if (messages.length > 0) await save(`${name}.messages`, messages);
}

async function recordAnswers(): Promise<void> {
  const session = await createRealSession(opencode, 'A session');
  const answers: Readonly<Record<string, readonly [string, string, unknown?]>> = {
    'get-health': ['GET', '/global/health'],
    'get-path': ['GET', '/path'],
    'get-project-current': ['GET', '/project/current'],
    'get-session': ['GET', `/session/${session.id}`],
    'get-session-list': ['GET', '/session?roots=true&limit=1'],
    'get-session-status-idle': ['GET', '/session/status'],
    'get-permission-none': ['GET', '/permission'],
    'get-question-none': ['GET', '/question'],
    'get-message-unknown': ['GET', `/session/${session.id}/message/msg_000000000000AAAAAAAAAAAAAA`],
    'get-session-unknown': ['GET', '/session/ses_000000000000AAAAAAAAAAAAAA'],
    'get-session-bad-id': ['GET', '/session/nonsense'],
    'post-prompt-bad-body': ['POST', `/session/${session.id}/prompt_async`, { parts: 'none' }],
    'post-abort-idle': ['POST', `/session/${session.id}/abort`],
    'post-permission-unknown': ['POST', '/permission/per_000000000000AAAAAAAAAAAAAA/reply', { reply: 'once' }],
    'post-question-unknown': ['POST', '/question/que_000000000000AAAAAAAAAAAAAA/reject', {}],
  };
  for (const [name, [method, path, body]] of Object.entries(answers))
    await save(name, await answer(opencode, method, path, body));
}

async function recordGlobalEvents(): Promise<void> {
  const session = await createRealSession(opencode, 'global');
  const controller = new AbortController();
  const response = await fetch(`${opencode.url}/global/event`, { signal: controller.signal });
  await using tap = await tapEvents(opencode);
  await session.prompt('echo: global');
  await tap.waitFor('session.idle', ({ sessionID }) => sessionID === session.id);
  const raw: unknown[] = [];
  let text = '';
  for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += chunk;
    const messages = text.split('\n\n');
    text = messages.pop() ?? '';
    for (const message of messages) raw.push(JSON.parse(message.replace(/^data: /, '')));
    if (JSON.stringify(raw).includes('"session.idle"')) break;
  }
  controller.abort();
  await save('turn-text.global-events', raw);
}

/** A server killed in the middle of a turn: what the store holds for ever after. */
async function recordInterruption(): Promise<void> {
  const session = await createRealSession(opencode, 'interrupted');
  await using tap = await tapEvents(opencode);
  await session.prompt('gate-mid record-kill: begun |never');
  await tap.waitFor('message.part.delta');
  await opencode.kill('SIGKILL');
  await opencode.restart();
  await save('messages-interrupted', await opencode.json('GET', `/session/${session.id}/message`));
}

/** Everything that belongs to the turn has been broadcast. */
async function idle({ opencode: server, tap, session }: Scene): Promise<void> {
  await tap.waitFor('session.idle', ({ sessionID }) => sessionID === session.id);
  await session.settled();
  const from = tap.events.length;
  // What follows the idle event (session.updated, session.diff) belongs to the turn; it is over when a request of ours shows on the stream.
  await server.json('PATCH', `/session/${session.id}`, { title: 'Recorded' });
  await tap.waitFor('session.updated', ({ info }) => info.title === 'Recorded', { from });
}

async function answer(server: Opencode, method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await server.request(method, path, body);
  const text = await response.text();
  const type = response.headers.get('content-type');
  return {
    request: `${method} ${path}`,
    status: response.status,
    contentType: type,
    body: type?.startsWith('application/json') ? JSON.parse(text) : text,
  };
}
