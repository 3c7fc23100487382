import { afterAll, beforeAll, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/programs/mcp-child.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { CLAUDE_CODE, dataOf, type Data, openStage, progressText, refusalOf, type Stage } from './stage.ts';

let stage: Stage;
let server: McpChild;
let ends: Opencode;
let runs: Opencode;
const sessions = new Map<unknown, unknown>();

/** Two instances: `runs` works all the time, and `ends` stops for one reason after the other. */
const BOTH = ['ends', 'runs'];

beforeAll(async () => {
  stage = await openStage();
  [ends, runs] = await Promise.all([stage.opencode(), stage.opencode()]);
  await stage.register('ends', ends);
  await stage.register('runs', runs);
  server = await stage.server(CLAUDE_CODE);
  // The first turn of an opencode loads it, which several at once make slow.
  for (const instance of BOTH) await server.call('send', { instance, message: 'echo: warm' });
});
afterAll(() => stage.close());

const turnsOf = (call: ToolCall): readonly Data[] => dataOf(call)['turns'] as readonly Data[];
const begin = (instance: string, message: string): Promise<ToolCall> =>
  server.call('send_message', { instance, session_id: sessions.get(instance), message, async: true });
const wait = async (args: Data = { instances: BOTH }): Promise<readonly Data[]> =>
  turnsOf(await server.call('wait', args));

test('one send reaches all instances, or none if one of them is unknown', async () => {
  refusalOf(await server.call('send', { instance: [...BOTH, 'nobody'], message: 'echo: never' }));
  const sent = await server.call('send', { instance: BOTH, message: 'echo: ready' });
  expect(dataOf(sent)).toMatchObject({
    outcome: '2 completed',
    turns: BOTH.map((instance) => ({ instance, text: 'ready' })),
  });
  for (const instance of BOTH) expect(progressText(sent)).toContain(`[${instance}] `);
  for (const { instance, session } of turnsOf(sent)) sessions.set(instance, (session as { id: string }).id);
  expect(stage.model.turns('echo: never')).toBe(0);
});

test('wait for any returns when one instance ends, needs an answer or fails, while the other still runs', async () => {
  const running = { instance: 'runs', outcome: 'running' };
  await begin('runs', 'gate runs: at last');
  await begin('ends', 'gate ends: the end');
  const waiting = server.call('wait', { instances: BOTH });
  await stage.model.waitForGate('ends');
  stage.model.release('ends');
  const ended = await waiting;
  expect(turnsOf(ended)).toMatchObject([{ outcome: 'completed', text: 'the end' }, running]);
  expect(dataOf(ended)['next']).toContain('runs');

  await begin('ends', 'bash: rm -rf build');
  const asks = { outcome: 'waiting', waiting: [expect.stringContaining('«bash "rm -rf build"»') as string] };
  // Until it is answered, every wait returns with it.
  for (const args of [{ instances: BOTH }, {}]) expect(await wait(args)).toMatchObject([asks, running]);
  dataOf(await server.call('respond', { instance: 'ends', reply: 'reject' }));

  await begin('ends', 'fail 401');
  const failed = { outcome: 'failed', reason: expect.stringContaining('scripted failure 401') as string };
  expect(await wait()).toMatchObject([failed, running]);
});

test('wait for all returns when the last instance has ended, or at the time limit', async () => {
  const [ended, running] = [{ outcome: 'completed', text: 'the end' }, { outcome: 'running' }];
  dataOf(await server.call('send', { instance: 'ends', session_id: sessions.get('ends'), message: 'echo: the end' }));
  expect(await wait({ instances: BOTH, for: 'all', timeout_seconds: 1 })).toMatchObject([ended, running]);
  const waiting = wait({ instances: BOTH, for: 'all' });
  await stage.model.waitForGate('runs');
  stage.model.release('runs');
  expect(await waiting).toMatchObject([ended, { outcome: 'completed', text: 'at last' }]);
  await expect.poll(async () => (await server.call('wait')).text).toContain('Nothing runs');
});

test('wait for any returns when an instance is killed', async () => {
  await begin('runs', 'gate on: never');
  await begin('ends', 'gate killed: never');
  await stage.model.waitForGate('killed');
  const waiting = wait();
  await ends.kill('SIGKILL');
  expect(await waiting).toMatchObject([
    {
      outcome: expect.stringMatching(/^(?:lost|offline)$/) as string,
      reason: expect.stringMatching(/reach|ECONN(?:REFUSED|RESET)/) as string,
    },
    { outcome: 'running' },
  ]);
});
