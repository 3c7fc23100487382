import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { MODEL_ID, PROVIDER_ID } from '../rig/scripted-model.ts';
import type { Opencode } from '../rig/opencode.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

let stage: Stage;
let opencode: Opencode;
let state: TempDir;
let server: McpChild;

beforeAll(async () => {
  stage = await openStage();
  state = tempDir('send-options');
  opencode = await stage.opencode();
  await stage.register('worker', opencode);
  server = await open();
});
afterAll(async () => {
  await stage.close();
  await state.close();
});

/** All servers of a person share one state directory. */
const open = (env: Readonly<Record<string, string>> = {}): Promise<McpChild> =>
  stage.server({ env: { XDG_STATE_HOME: state.path, ...env } });

async function newSession(): Promise<string> {
  const { session } = data(await server.call('create_session', { instance: 'worker' })) as { session: { id: string } };
  return session.id;
}

async function userTexts(session_id: string): Promise<string[]> {
  const messages = await opencode.json<{ info: { role: string }; parts: { type: string; text?: string }[] }[]>(
    'GET',
    `/session/${session_id}/message`,
  );
  return messages
    .filter(({ info }) => info.role === 'user')
    .map(({ parts }) => parts.map(({ text = '' }) => text).join(''));
}

describe('when the session is busy', () => {
  test('fail sends nothing, queue sends when it is idle, interrupt stops what runs first', async () => {
    const session_id = await newSession();
    const to = { instance: 'worker', session_id };
    await server.call('send_message', { ...to, message: 'gate first: done first', async: true });
    await stage.model.waitForGate('first');
    const refused = await server.call('send', { ...to, message: 'echo: refused' });
    expect(refused.text).toContain('nothing was sent');
    const queued = server.call('send', { ...to, message: 'echo: queued', when_busy: 'queue' });
    stage.model.release('first');
    expect(data(await queued)).toMatchObject({ outcome: 'completed', text: 'queued' });
    await server.call('send_message', { ...to, message: 'gate second: never', async: true });
    await stage.model.waitForGate('second');
    expect(data(await server.call('send', { ...to, message: 'echo: instead', when_busy: 'interrupt' }))).toMatchObject({
      aborted: true,
      outcome: 'completed',
      text: 'instead',
    });
    expect(await userTexts(session_id)).toEqual([
      'gate first: done first',
      'echo: queued',
      'gate second: never',
      'echo: instead',
    ]);
  });

  test('a queue ends with the time there is, or where somebody must answer first; nothing was sent', async () => {
    const session_id = await newSession();
    const to = { instance: 'worker', session_id };
    const hasty = await open({ SEND_TIMEOUT_MS: '3000' });
    await server.call('send_message', { ...to, message: 'gate long: over', async: true });
    await stage.model.waitForGate('long');
    expect((await hasty.call('send', { ...to, message: 'echo: late', when_busy: 'queue' })).text).toContain(
      'nothing was sent',
    );
    await server.call('abort_session', to);
    await server.call('send', { ...to, message: 'bash: echo stands' });
    expect((await server.call('send', { ...to, message: 'echo: late', when_busy: 'queue' })).text).toContain(
      'nothing was sent',
    );
    await server.call('abort_session', to);
    expect(await userTexts(session_id)).not.toContain('echo: late');
  });
});

describe('agent and model', () => {
  test('known ones answer; unknown ones are refused before anything is sent, with what there is', async () => {
    const session_id = await newSession();
    const to = { instance: 'worker', session_id };
    const model = `${PROVIDER_ID}/${MODEL_ID}`;
    expect(data(await server.call('send', { ...to, message: 'echo: planned', agent: 'plan', model }))).toMatchObject({
      outcome: 'completed',
      text: 'planned',
    });
    const [last] = (await opencode.json<{ info: { agent?: string; mode?: string } }[]>(
      'GET',
      `/session/${session_id}/message?limit=1`,
    )) as [{ info: { agent?: string; mode?: string } }];
    expect([last.info.agent, last.info.mode]).toContain('plan');
    for (const [field, value, there] of [
      ['agent', 'nobody', 'plan'],
      ['model', 'no/such', model],
      ['model', `x/${MODEL_ID}`, model],
    ] as const) {
      const refused = await server.call('send', { ...to, message: 'echo: lost', [field]: value });
      expect(refused.result.isError).toBe(true);
      expect(refused.text).toContain(there);
      expect(refused.text).toContain('nothing was sent');
    }
    expect(await userTexts(session_id)).toEqual(['echo: planned']);
  });
});

describe('a request id', () => {
  test('repeated at once, after a time-out, and by another server: one message, one turn', async () => {
    const session_id = await newSession();
    const to = { instance: 'worker', session_id };
    const once = { ...to, message: 'gate once: only once', request_id: 'r-1' };
    const hasty = await open({ SEND_TIMEOUT_MS: '4000' });
    const both = Promise.all([hasty.call('send', once), hasty.call('send', once)]);
    await stage.model.waitForGate('once');
    expect((await both).map((call) => data(call)['outcome'])).toEqual(['running', 'running']);
    hasty.kill('SIGKILL');
    await hasty.exited;
    const third = server.call('send', once);
    stage.model.release('once');
    expect(data(await third)).toMatchObject({ outcome: 'completed', text: 'only once' });
    // Long done, by a server that has never heard of it.
    const later = await open();
    expect(data(await later.call('send', once))).toMatchObject({ outcome: 'completed', text: 'only once' });
    expect(await userTexts(session_id)).toEqual(['gate once: only once']);
    expect(stage.model.turns('gate once: only once')).toBe(1);
  });

  test('goes on after the instance was restarted in the middle, without a second message', async () => {
    const session_id = await newSession();
    const message = 'gate restarted: never';
    const once = { instance: 'worker', session_id, message, request_id: 'r-2' };
    const sending = server.call('send', once);
    await stage.model.waitForGate('restarted');
    await opencode.restart();
    // On a slow machine the restart takes longer than it is waited for; then what became of it cannot be told yet.
    await sending;
    expect(data(await server.call('send', once))).toMatchObject({ outcome: 'interrupted' });
    expect(await userTexts(session_id)).toEqual([message]);
  });

  test('for another text it is an error, and each of several instances has its own', async () => {
    const refused = await server.call('send', { instance: 'worker', message: 'echo: other', request_id: 'r-1' });
    expect(refused.result.isError).toBe(true);
    expect(refused.text).toContain('another message');
  });
});
