import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

/** What one answer may have (`MAX_BODY_BYTES`). */
const LIMIT_BYTES = 8 * 1024 * 1024;
/** A busy machine writes and compares such files for many seconds. */
const SLOW_MS = 300_000;

/** As with screenshots, PDFs, or a lockfile that is written again each turn. */
describe('a session whose messages are larger than any answer may be', () => {
  let stage: Stage;
  let opencode: Opencode;
  let server: McpChild;
  let session_id: string;

  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode({ permission: { bash: 'ask', edit: 'allow' } });
    await stage.register('worker', opencode);
    server = await stage.server({ clientInfo: { name: 'claude-code', version: '2.1.329' } });
    session_id = await newSession();
  });
  afterAll(() => stage.close());

  async function newSession(): Promise<string> {
    const created = await server.call('create_session', { instance: 'worker', title: 'large' });
    return (data(created)['session'] as { id: string }).id;
  }

  const send = (message: string, session = session_id): Promise<ToolCall> =>
    server.call('send', { instance: 'worker', session_id: session, message }, { timeoutMs: 120_000 });

  async function bytesOf(limit: number): Promise<number> {
    return (await (await opencode.request('GET', `/session/${session_id}/message?limit=${limit}`)).text()).length;
  }

  test(
    'is sent to, turn after turn',
    async () => {
      for (const chars of [1_700_000, 1_700_001, 1_700_002])
        expect(data(await send(`flood-write lock.json ${chars}`))).toMatchObject({
          outcome: 'completed',
          text: expect.stringContaining('write returned') as string,
        });
      expect(await bytesOf(50)).toBeGreaterThan(LIMIT_BYTES);
      expect(data(await send('echo: small'))).toMatchObject({ outcome: 'completed', text: 'small' });
    },
    SLOW_MS,
  );

  test(
    'one message of which is: it is read without what makes it large, and the session goes on',
    async () => {
      const sent = await send('flood-write other.json 9000000');
      expect(data(sent)).toMatchObject({ outcome: 'completed' });
      expect(sent.text).not.toContain('still streaming');
      expect(await bytesOf(2)).toBeGreaterThan(LIMIT_BYTES);
      const read = await server.call('read', { instance: 'worker', session_id, message_limit: 2 });
      expect(read.result.isError).not.toBe(true);
      expect(data(await send('echo: goes on'))).toMatchObject({ outcome: 'completed', text: 'goes on' });
      expect(data(await server.call('wait', { instances: ['worker'], session_id }))).toMatchObject({
        turns: [{ outcome: 'completed', text: 'goes on' }],
      });
      const all = await server.call('read', { instance: 'worker', session_id, message_limit: 50 });
      expect((data(all)['messages'] as { text: string }[]).at(-1)).toMatchObject({ text: 'goes on' });
    },
    SLOW_MS,
  );

  test(
    'tells what it changed, of all its turns',
    async () => {
      const diff = await server.call('get_diff', { instance: 'worker', session_id }, { timeoutMs: 120_000 });
      // opencode leaves files of more than 2 MB out of what it compares (1.18.33).
      expect(data(diff)).toMatchObject({ files: [{ file: 'lock.json' }], messages: { length: 3 } });
    },
    SLOW_MS,
  );

  test(
    'waits for a permission of 8 million characters: every tool tells it, and it is answered',
    async () => {
      const session = await newSession();
      const sent = await send('flood-bash 8000000', session);
      expect(data(sent)).toMatchObject({ outcome: 'waiting' });
      expect(data(await server.call('instances'))).toMatchObject({
        instances: [{ state: 'waiting', waiting: [expect.stringContaining('«bash "echo ok # xxx') as string] }],
      });
      expect(data(await server.call('wait', { instances: ['worker'] }))).toMatchObject({
        turns: [{ outcome: 'waiting' }],
      });
      const settled = await server.call('respond', { instance: 'worker', reply: 'reject' }, { timeoutMs: 120_000 });
      expect(data(settled)).toMatchObject({ settled: expect.stringContaining('rejected') as string });
      expect(data(await server.call('instances'))).toMatchObject({ instances: [{ state: 'idle' }] });
    },
    SLOW_MS,
  );
});
