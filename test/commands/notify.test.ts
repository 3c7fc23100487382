import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { run as runCommand } from '../../src/commands/run.ts';
import { startFakeNtfy } from '../rig/fake/fake-ntfy.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { shellEnv } from '../rig/programs/shell-command.ts';
import { tempDir } from '../rig/temp.ts';
import { runInProcess } from './in-process.ts';

async function runWithChannels(args: readonly string[], channels?: readonly object[]) {
  await using temp = tempDir('notify-command');
  const folder = join(temp.path, '.config', 'opencode-mcp');
  mkdirSync(folder, { recursive: true });
  const config = channels === undefined ? {} : { notify: { channels } };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config), { mode: 0o600 });
  const env = { ...shellEnv(temp.path, join(temp.path, 'registry')), NTFY_TOKEN: 'tk_s3cret' };
  return await runInProcess(args, env, runCommand);
}

describe('notify --test', () => {
  it("prints each channel's result, and fails if one failed", async () => {
    await using ntfy = await startFakeNtfy({ token: 'tk_s3cret' });
    await using hook = await listenHttp((_, response) => void response.writeHead(500).end('out of order'));
    await using temp = tempDir('notify-command');
    const teeOutput = join(temp.path, 'tee-output');
    const { code, stdout, stderr } = await runWithChannels(
      ['notify', '--test'],
      [
        // A test notice is sent in spite of `events: []`.
        { type: 'ntfy', name: 'phone', url: ntfy.url, topic: 'ada-agents', token: { env: 'NTFY_TOKEN' }, events: [] },
        { type: 'command', command: ['tee', teeOutput] },
        { type: 'webhook', url: `${hook.url}/hook-s3cret`, secret: 'key-s3cret' },
      ],
    );
    expect([code, stderr]).toEqual([1, '']);
    expect(stdout.split('\n')).toEqual([
      `phone (ntfy at ${ntfy.url}): sent`,
      'command (command tee): sent',
      `webhook (webhook at ${hook.url}): failed: POST ${hook.url}: HTTP 500; it says "out of order"`,
      '',
    ]);
    expect(ntfy.messages).toMatchObject([{ topic: 'ada-agents', title: 'Notifications arrive' }]);
    expect(JSON.parse(readFileSync(teeOutput, 'utf8'))).toMatchObject({ event: 'test' });
  });

  it('exits with code 0 if all channels succeeded', async () => {
    expect(await runWithChannels(['notify', '--test'], [{ type: 'command', command: ['true'] }])).toMatchObject({
      code: 0,
    });
  });

  it.each([['notify'], ['notify', '--test', 'more'], ['notify', '--tets']])(
    '%s %s %s exits with the usage error code 2',
    async (...args) => {
      const { code, stdout } = await runWithChannels(args, [{ type: 'command', command: ['true'] }]);
      expect([code, stdout]).toEqual([2, '']);
    },
  );
});

it.each([['notify', '--test'], ['watch']])('%s without a channel says where to add one', async (...args) => {
  const { code, stderr } = await runWithChannels(args);
  expect(code).toBe(2);
  expect(stderr).toContain('the config file has no channel; add one, such as {"notify":');
});
