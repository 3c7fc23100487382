import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};
interface Turn {
  readonly instance: string;
  readonly outcome: string;
  readonly text?: string;
  readonly reason?: string;
}
const turnsOf = (call: ToolCall): readonly Turn[] => (data(call)['turns'] ?? []) as readonly Turn[];
const byName = (call: ToolCall): Record<string, Turn> =>
  Object.fromEntries(turnsOf(call).map((turn) => [turn.instance, turn]));

/** Instances, named after what becomes of them. What ends may ask or fail before that. */
const NAMES = ['ends', 'vanishes', 'stays'] as const;

let stage: Stage;
let server: McpChild;
const opencodes = new Map<string, Opencode>();
const opencode = (name: string): Opencode => {
  const found = opencodes.get(name);
  if (found === undefined) throw new Error(`no ${name}`);
  return found;
};

beforeAll(async () => {
  stage = await openStage();
  for (const name of NAMES) {
    const started = await stage.opencode();
    opencodes.set(name, started);
    await stage.register(name, started);
  }
  // Waits for as long as it takes: this is about fates, not about patience.
  server = await stage.server({ clientInfo: { name: 'claude-code', version: '2.1.329' } });
  // The first turn of an opencode loads it, which several at once make slow.
  for (const instance of NAMES) await server.call('send', { instance, message: 'echo: warm' });
});
afterAll(() => stage.close());

const begin = (instance: string, message: string): Promise<ToolCall> =>
  server.call('send_message', { instance, session_id: sessions.get(instance), message, async: true });
const sessions = new Map<string, string>();

describe('instances with different fates', () => {
  test('all are begun at once by one send, and one that is unknown stops it before any gets a word', async () => {
    const refused = await server.call('send', { instance: [...NAMES, 'nobody'], message: 'echo: never' });
    expect(refused.result.isError).toBe(true);
    const sent = await server.call('send', { instance: [...NAMES], message: 'echo: ready' });
    expect(data(sent)['outcome']).toBe('3 completed');
    expect(turnsOf(sent).map(({ instance, text }) => [instance, text])).toEqual(NAMES.map((name) => [name, 'ready']));
    const told = sent.progress.map(({ message }) => message ?? '').join('');
    for (const name of NAMES) expect(told).toContain(`[${name}] `);
    for (const turn of turnsOf(sent) as readonly (Turn & { session: { id: string } })[])
      sessions.set(turn.instance, turn.session.id);
    expect(stage.model.turns('echo: never')).toBe(0);
  });

  test('any: the first that ends is told with what it said, the others as under way', async () => {
    await begin('stays', 'gate stays: at last');
    await begin('ends', 'gate ends: the end');
    const waiting = server.call('wait', { instances: ['stays', 'ends'] });
    await stage.model.waitForGate('ends');
    stage.model.release('ends');
    const call = await waiting;
    expect(byName(call)).toMatchObject({
      ends: { outcome: 'completed', text: 'the end' },
      stays: { outcome: 'running' },
    });
    expect(data(call)['next']).toContain('stays');
    expect(call.text).toContain('the end');
  });

  test('any: one that needs something is told with what', async () => {
    await begin('ends', 'bash: rm -rf build');
    const call = await server.call('wait', { instances: ['stays', 'ends'] });
    expect(byName(call)).toMatchObject({
      ends: { outcome: 'waiting', waiting: [expect.stringContaining('«bash "rm -rf build"»') as string] },
      stays: { outcome: 'running' },
    });
    // It is told again: nobody has answered.
    expect(byName(await server.call('wait', {}))).toMatchObject({ ends: { outcome: 'waiting' } });
    expect(data(await server.call('respond', { instance: 'ends', reply: 'reject' }))).toMatchObject({
      outcome: 'completed',
    });
  });

  test('any: one that fails, and one that vanishes', async () => {
    await begin('ends', 'fail 401');
    expect(byName(await server.call('wait', { instances: ['stays', 'ends'] }))).toMatchObject({
      ends: { outcome: 'failed', reason: expect.stringContaining('scripted failure 401') as string },
    });
    await begin('vanishes', 'gate vanishes: never');
    await stage.model.waitForGate('vanishes');
    const waiting = server.call('wait', { instances: ['stays', 'vanishes'] });
    await opencode('vanishes').kill('SIGKILL');
    const { vanishes } = byName(await waiting);
    expect(['lost', 'offline']).toContain(vanishes?.outcome);
    expect(vanishes?.reason).toMatch(/reach|ECONNREFUSED|ECONNRESET/);
  });

  test('all: returns when the last has ended; the time given is kept, and the rest is told as running', async () => {
    await begin('ends', 'echo: the end');
    await server.call('wait', { instances: ['ends'] });
    const early = await server.call('wait', { instances: ['ends', 'stays'], for: 'all', timeout_seconds: 1 });
    expect(byName(early)).toMatchObject({
      ends: { outcome: 'completed', text: 'the end' },
      stays: { outcome: 'running' },
    });
    const waiting = server.call('wait', { instances: ['ends', 'stays'], for: 'all' });
    await stage.model.waitForGate('stays');
    stage.model.release('stays');
    expect(byName(await waiting)).toMatchObject({
      ends: { outcome: 'completed' },
      stays: { outcome: 'completed', text: 'at last' },
    });
  });

  test('with nothing under way there is nothing to wait for', async () => {
    await until('everything to be idle', async () => {
      const { instances } = data(await server.call('instances')) as { instances: { state: string }[] };
      return instances.every(({ state }) => state === 'idle' || state === 'offline');
    });
    expect((await server.call('wait')).text).toContain('Nothing runs');
  });
});
