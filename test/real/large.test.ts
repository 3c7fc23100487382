import { beforeAll, describe, expect, test } from 'vitest';

import { CLAUDE_CODE, type Data, dataOf, useWorker } from './stage.ts';

/** What one answer may have (`MAX_BODY_BYTES`). */
const LIMIT_BYTES = 8 * 1024 * 1024;
/** A busy machine writes and compares such files for many seconds. */
const SLOW_MS = 300_000;

/** As with screenshots, PDFs, or a lockfile that is written again each turn. */
describe('a session whose messages are larger than an answer may be', { timeout: SLOW_MS }, () => {
  const worker = useWorker({ permission: { bash: 'ask', edit: 'allow' } }, CLAUDE_CODE);
  let session_id: string;
  beforeAll(async () => {
    session_id = await worker.newSession();
  });

  const call = async (tool: string, args: Data): Promise<Data> =>
    dataOf(await worker.call(tool, args, { timeoutMs: 120_000 }));
  const send = (message: string, session = session_id): Promise<Data> => call('send', { session_id: session, message });

  async function bytesOf(limit: number): Promise<number> {
    const { headers, body } = await worker.opencode.request('GET', `/session/${session_id}/message?limit=${limit}`);
    await body?.cancel();
    return Number(headers.get('content-length'));
  }

  test('takes messages, turn after turn', async () => {
    for (const chars of [1_700_000, 1_700_001, 1_700_002])
      expect(await send(`flood-write lock.json ${chars}`)).toMatchObject({
        outcome: 'completed',
        text: expect.stringContaining('write returned') as string,
      });
    expect(await bytesOf(50)).toBeGreaterThan(LIMIT_BYTES);
    expect(await send('echo: small')).toMatchObject({ outcome: 'completed', text: 'small' });
  });

  test('with one message that is too large, is read without the large parts, and takes more messages', async () => {
    const sent = await worker.call(
      'send',
      { session_id, message: 'flood-write other.json 9000000' },
      { timeoutMs: 120_000 },
    );
    expect(dataOf(sent)).toMatchObject({ outcome: 'completed' });
    expect(sent.text).not.toContain('still streaming');
    expect(await bytesOf(2)).toBeGreaterThan(LIMIT_BYTES);
    await call('read', { session_id, message_limit: 2 });
    expect(await send('echo: goes on')).toMatchObject({ outcome: 'completed', text: 'goes on' });
    expect(dataOf(await worker.server.call('wait', { instances: ['worker'], session_id }))).toMatchObject({
      turns: [{ outcome: 'completed', text: 'goes on' }],
    });
    const { messages } = await call('read', { session_id, message_limit: 50 });
    expect((messages as Data[]).at(-1)).toMatchObject({ text: 'goes on' });
  });

  test('shows the changes of all its turns', async () => {
    // opencode compares no files of more than 2 MB (1.18.33).
    const lock = { files: [{ file: 'lock.json' }], messages: { length: 3 } };
    expect(await call('get_diff', { session_id })).toMatchObject(lock);
  });

  test('waits for a permission of 8 million characters, which every tool shows and which can be answered', async () => {
    const listed = async (): Promise<unknown> => dataOf(await worker.server.call('instances'))['instances'];
    expect(await send('flood-bash 8000000', await worker.newSession())).toMatchObject({ outcome: 'waiting' });
    expect(await listed()).toMatchObject([
      { state: 'waiting', waiting: [expect.stringContaining('«bash "echo ok # xxx') as string] },
    ]);
    expect(dataOf(await worker.server.call('wait', { instances: ['worker'] }))).toMatchObject({
      turns: [{ outcome: 'waiting' }],
    });
    expect(await call('respond', { reply: 'reject' })).toMatchObject({
      settled: expect.stringContaining('rejected') as string,
    });
    expect(await listed()).toMatchObject([{ state: 'idle' }]);
  });
});
