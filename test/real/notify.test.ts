import { hostname } from 'node:os';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { Opencode } from '../rig/opencode/opencode.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { createRealSession } from '../rig/opencode/real-session.ts';
import { runShell } from '../rig/programs/shell-command.ts';
import { within } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';
import { openWatchCommand, type WatchCommand } from './watch-command.ts';

describe.skipIf(isMissing(PINNED_OPENCODE))('opencode-mcp watch beside a real opencode', () => {
  let stage: Stage;
  let opencode: Opencode;
  let watch: WatchCommand;

  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode();
    // Registered on this machine, not on the stage's.
    await stage.registry.add({ name: 'worker', port: opencode.port, cwd: opencode.directory, id: 'worker-1' });
    watch = await openWatchCommand(stage.registry.path);
    await watch.start();
  });
  afterAll(async () => {
    await watch[Symbol.asyncDispose]();
    await stage.close();
  });

  /** The kinds of the notifications about a session, in order. */
  const kindsFor = (title: string): string[] =>
    watch.ntfy.messages.flatMap((message) => message.title?.split(`: ${title}`).slice(0, -1) ?? []);

  async function allow(): Promise<void> {
    const [permission] = await opencode.json<readonly { id: string }[]>('GET', '/permission');
    await opencode.json('POST', `/permission/${permission?.id}/reply`, { reply: 'once' });
  }

  test('notifies of a permission with its exact command, of its answer, and of the end of the turn', async () => {
    const session = await createRealSession(opencode, 'Clean up');
    await session.prompt('bash: rm -rf build');
    const asked = await watch.says(/^Permission: Clean up$/);
    expect(asked).toMatchObject({ priority: 4, tags: ['lock'] });
    expect(asked.message).toBe(`bash "rm -rf build"\n${hostname()} ${opencode.directory}`);
    await allow();
    expect(await watch.says(/^Settled: Clean up$/)).toMatchObject({ sequence_id: asked.sequence_id, priority: 1 });
    const done = await watch.says(/^Done: Clean up$/);
    expect(done.sequence_id).not.toBe(asked.sequence_id);
    expect(kindsFor('Clean up')).toEqual(['Permission', 'Settled', 'Done']);
  });

  test('notifies of a question with its options, and of a failure with its reason', async () => {
    const asking = await createRealSession(opencode, 'Paint');
    await asking.prompt('ask: Which color?|Red|Blue');
    expect((await watch.says(/^Question: Paint$/)).message).toMatch(/^Which color\? Red \| Blue\n/);
    await asking.abort();
    await watch.says(/^Settled: Paint$/);
    const failing = await createRealSession(opencode, 'Break');
    await failing.prompt('fail 400');
    expect((await watch.says(/^Failed: Break$/)).message).toMatch(/400|scripted/);
  });

  test('notifies once of each event that happened while it was stopped, and logs no secret', async () => {
    const session = await createRealSession(opencode, 'Wait for me');
    await session.prompt('bash: echo later');
    await watch.says(/^Permission: Wait for me$/);
    expect(await watch.end()).not.toMatch(/tk_s3cret|ada-agents|rm -rf/);
    await allow();
    await session.settled();
    await watch.start();
    await watch.says(/^Settled: Wait for me$/);
    await watch.says(/^Done: Wait for me$/);
    expect(kindsFor('Wait for me').toSorted()).toEqual(['Done', 'Permission', 'Settled']);
  });

  test('does not notify of a turn that send and respond follow to its end', async () => {
    const followed = await createRealSession(opencode, 'By send');
    const send = runShell(['send', '--session', followed.id, 'worker', 'bash: echo followed'], watch.env);
    expect(await within(send.ended, 'send to end'), send.stderr()).toBe(3);
    const respond = runShell(['respond', 'worker', '--reply', 'once'], watch.env);
    expect(await within(respond.ended, 'respond to end'), respond.stderr()).toBe(0);
    const other = await createRealSession(opencode, 'By hand');
    await other.prompt('echo: not followed');
    await watch.says(/^Done: By hand$/);
    expect(kindsFor('By send')).toEqual([]);
  });
});
