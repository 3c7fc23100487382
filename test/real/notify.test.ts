import { mkdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { type FakeNtfy, type NtfyMessage, startFakeNtfy } from '../rig/fake-ntfy.ts';
import type { Opencode } from '../rig/opencode.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { createRealSession } from '../rig/real-session.ts';
import { runShell, shellEnv, type ShellRun } from '../rig/shell-command.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const TOPIC = 'ada-agents';
const TOKEN = 'tk_s3cret-of-the-topic';

describe.skipIf(isMissing(PINNED_OPENCODE))('opencode-mcp watch beside a real opencode', () => {
  let stage: Stage;
  let opencode: Opencode;
  let ntfy: FakeNtfy;
  let temp: TempDir;
  let env: Readonly<Record<string, string>>;
  let watching: ShellRun;

  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode();
    // On this machine, and not on the stage's.
    await stage.registry.add({ name: 'worker', port: opencode.port, cwd: opencode.directory, id: 'worker-1' });
  });
  afterAll(() => stage.close());

  beforeEach(async () => {
    temp = tempDir('opencode-mcp-watch');
    ntfy = await startFakeNtfy({ token: TOKEN });
    const folder = join(temp.path, '.config', 'opencode-mcp');
    await mkdir(folder, { recursive: true });
    const channel = { type: 'ntfy', url: ntfy.url, topic: TOPIC, token: { env: 'NTFY_TOKEN' } };
    const config = { notify: { channels: [channel], minTurnSeconds: 0 } };
    await writeFile(join(folder, 'config.json'), JSON.stringify(config), { mode: 0o600 });
    env = { ...shellEnv(temp.path, stage.registry.path), NTFY_TOKEN: TOKEN };
    await watch();
  });
  afterEach(async () => {
    const log = await end();
    expect(log).not.toMatch(/tk_s3cret|ada-agents|rm -rf/);
    await ntfy.close();
    await temp.close();
  });

  /** Resolves once the watcher follows the opencode: a turn of another session is noticed. */
  async function watch(): Promise<void> {
    watching = runShell(['watch', '--log-level', 'debug'], env);
    await until('it to watch', () => /info notifying/.test(watching.stderr()));
  }

  async function end(): Promise<string> {
    watching.kill('SIGTERM');
    expect(await within(watching.ended, 'its end')).toBe(0);
    return watching.stderr();
  }

  async function says(title: RegExp): Promise<NtfyMessage> {
    return await until(`ntfy to say ${title}`, () => ntfy.messages.find((one) => title.test(one.title ?? '')));
  }

  test('a permission with its exact command, that it is settled, and the end of the turn', async () => {
    const session = await createRealSession(opencode, 'Clean up');
    await session.prompt('bash: rm -rf build');
    const asked = await says(/^Permission: Clean up$/);
    expect(asked).toMatchObject({ priority: 4, tags: ['lock'] });
    expect(asked.message).toBe(`bash "rm -rf build"\n${hostname()} ${opencode.directory}`);
    const [permission] = await opencode.json<readonly { id: string }[]>('GET', '/permission');
    await opencode.json('POST', `/permission/${permission?.id}/reply`, { reply: 'once' });
    expect(await says(/^Settled: Clean up$/)).toMatchObject({ sequence_id: asked.sequence_id, priority: 1 });
    const done = await says(/^Done: Clean up$/);
    expect(done.sequence_id).not.toBe(asked.sequence_id);
    expect([ntfy.messages.length, ntfy.shown.size]).toEqual([3, 2]);
  });

  test('a question with its options, and a failure with its reason', async () => {
    const asking = await createRealSession(opencode, 'Paint');
    await asking.prompt('ask: Which color?|Red|Blue');
    expect((await says(/^Question: Paint$/)).message).toMatch(/^Which color\? Red \| Blue\n/);
    await asking.abort();
    await says(/^Settled: Paint$/);
    const failing = await createRealSession(opencode, 'Break');
    await failing.prompt('fail 400');
    expect((await says(/^Failed: Break$/)).message).toMatch(/400|scripted/);
  });

  test('over a restart: nothing twice, and what happened meanwhile', async () => {
    const session = await createRealSession(opencode, 'Wait for me');
    await session.prompt('bash: echo later');
    await says(/^Permission: Wait for me$/);
    await end();
    const [permission] = await opencode.json<readonly { id: string }[]>('GET', '/permission');
    await opencode.json('POST', `/permission/${permission?.id}/reply`, { reply: 'once' });
    await session.settled();
    await watch();
    await says(/^Settled: Wait for me$/);
    await says(/^Done: Wait for me$/);
    expect(ntfy.messages.map(({ title }) => title?.split(':')[0] ?? '').toSorted()).toEqual([
      'Done',
      'Permission',
      'Settled',
    ]);
  });

  test('nothing of a turn that a send follows, and a respond to its end', async () => {
    const followed = await createRealSession(opencode, 'By send');
    const send = runShell(['send', '--session', followed.id, 'worker', 'bash: echo followed'], env);
    expect(await within(send.ended, 'send to end'), send.stderr()).toBe(3);
    const respond = runShell(['respond', 'worker', '--reply', 'once'], env);
    expect(await within(respond.ended, 'respond to end'), respond.stderr()).toBe(0);
    const other = await createRealSession(opencode, 'By hand');
    await other.prompt('echo: not followed');
    await says(/^Done: By hand$/);
    expect(ntfy.messages.map(({ title }) => title)).toEqual(['Done: By hand']);
  });
});
