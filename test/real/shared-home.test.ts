import { beforeAll, expect, test } from 'vitest';

import type { ToolCall } from '../rig/programs/mcp-child.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { CLAUDE_CODE, dataOf, useWorker } from './stage.ts';

/** Two opencodes of one person in one project, `worker` and `twin`: they share their sessions, but neither knows what the other one runs. */
const worker = useWorker({}, CLAUDE_CODE);
const { data, refusal, newSession, userTexts } = worker;
const TWIN = { instance: 'twin' };
let twin: Opencode;

beforeAll(async () => {
  const { home, directory } = worker.opencode;
  twin = await worker.stage.opencode({ home, directory });
  await worker.stage.register('twin', twin);
  await worker.server.call('refresh_instances');
});

/** A session in which `worker` has answered one half, and waits at a gate of this name. */
async function running(gate: string): Promise<string> {
  const session_id = await newSession(gate);
  await data('send_message', { session_id, message: `gate-mid ${gate}: half |of ${gate}`, async: true });
  await worker.stage.model.waitForGate(gate);
  return session_id;
}

test('a session that runs in one instance gets no message and no abort from the other, which names the first', async () => {
  const session_id = await running('in-worker');
  const { model } = worker.stage;
  for (const tool of ['send', 'send_message'])
    expect(await refusal(tool, { ...TWIN, session_id, message: 'echo: through twin' })).toMatch(
      /nothing was sent: worker, another opencode with the same sessions, works on this one; send there/,
    );
  const abort = { ...TWIN, session_id, abort: true };
  for (const [tool, args] of [
    ['abort_session', { ...TWIN, session_id }],
    ['send', abort],
    ['send', { ...abort, message: 'echo: through twin' }],
  ] as const)
    expect(await refusal(tool, args)).toMatch(/runs in worker.*abort it there/s);
  expect(Object.keys(await worker.opencode.json<object>('GET', '/session/status'))).toEqual([session_id]);

  expect(await data('abort_session', { session_id })).toMatchObject({ aborted: true, outcome: 'aborted' });
  expect(await worker.opencode.json('GET', '/session/status')).toEqual({});
  expect(await data('read', { ...TWIN, session_id })).toMatchObject({
    messages: [{ role: 'user' }, { role: 'assistant', state: 'aborted' }],
  });
  expect(model.turns('echo: through twin')).toBe(0);
  expect(await userTexts(session_id)).toEqual(['gate-mid in-worker: half |of in-worker']);
});

test('a session that runs in one instance is shown as busy by the other, with the reason, while the other itself is idle', async () => {
  const session_id = await running('shown');
  const busy = { id: session_id, state: 'busy', reason: 'worker works on it' };
  const read = await data('read', { ...TWIN, session_id });
  expect(read).toMatchObject({ session: busy, messages: [{ role: 'user' }, { state: 'streaming' }] });
  const [, answer] = read['messages'] as { readonly id: string }[];
  expect(await data('read', { ...TWIN, session_id, message_id: answer?.id })).toMatchObject({
    session: busy,
    messages: [{ state: 'streaming' }],
  });
  const { sessions } = await data('list_sessions', TWIN);
  expect(sessions).toContainEqual(expect.objectContaining(busy));
  expect(await data('get_status', TWIN)).toMatchObject({ state: 'idle', sessions: [] });
  const { directory } = worker.opencode;
  expect(dataOf(await worker.server.call('instances'))).toMatchObject({
    total: 2,
    instances: [
      { name: 'worker', directory, state: 'busy' },
      { name: 'twin', directory, state: 'idle' },
    ],
  });
  worker.stage.model.release('shown');
  // Sent through the one, it waits for nobody else: by then the first turn has ended, in the store too.
  await data('send', { session_id, message: 'echo: after', abort: true });
  expect(await data('read', { ...TWIN, session_id })).toMatchObject({
    session: { state: 'idle' },
    messages: [{}, {}, { text: 'echo: after' }, { text: 'after', state: 'complete' }],
  });
});

test('two sends to different sessions, one through each instance, each get their own answer', async () => {
  const sessions = [await newSession('for worker'), await newSession('for twin')];
  for (let round = 1; round <= 3; round++) {
    const sending = ['worker', 'twin'].map((instance, index) =>
      data('send', { instance, session_id: sessions[index], message: `slow 1 20: ${instance} ${round}` }),
    );
    expect(await Promise.all(sending)).toMatchObject([
      { instance: 'worker', outcome: 'completed', text: `worker ${round} 1` },
      { instance: 'twin', outcome: 'completed', text: `twin ${round} 1` },
    ]);
    expect(worker.stage.model.turns(`slow 1 20: worker ${round}`)).toBe(1);
  }
});

test('an idle session can be continued through either instance, with one answer to each message', async () => {
  const session_id = await newSession('in turn');
  const messages = ['worker', 'twin', 'worker', 'twin'].map((instance, index) => ({
    instance,
    message: `echo: turn ${index}`,
  }));
  for (const [index, message] of messages.entries())
    expect(await data('send', { ...message, session_id })).toMatchObject({
      outcome: 'completed',
      text: `turn ${index}`,
    });
  expect(await userTexts(session_id)).toEqual(messages.map(({ message }) => message));
});

test('of two simultaneous sends to one session, one through each instance, one runs and the other is refused', async () => {
  const session_id = await newSession('wanted by both');
  const [one, other] = await Promise.all(
    ['worker', 'twin'].map((instance) =>
      worker.call('send', { instance, session_id, message: `slow 5 100: both ${instance}` }),
    ),
  );
  const isRefused = (call: ToolCall | undefined): boolean => call?.result.isError === true;
  expect(isRefused(one)).toBe(!isRefused(other));
  expect(await userTexts(session_id)).toEqual([`slow 5 100: both ${isRefused(one) ? 'twin' : 'worker'}`]);
});
