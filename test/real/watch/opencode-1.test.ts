import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { isMissing, PINNED_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import type { Opencode } from '../../rig/opencode/opencode.ts';
import { createRealSession } from '../../rig/opencode/real-session.ts';
import { until } from '../../rig/wait.ts';
import { openWatchWorld, type WatchWorld } from '../../watch/world.ts';
import { openStage, type Stage } from '../stage.ts';

const PASSWORD = 'pa55word-of-the-opencode';

describe.skipIf(isMissing(PINNED_OPENCODE))('a watcher of a real opencode', () => {
  let stage: Stage;
  let opencode: Opencode;
  let world: WatchWorld;

  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode({ password: PASSWORD });
    world = await openWatchWorld();
    await world.register('one', opencode, PASSWORD);
    await world.followed('one');
  });
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]();
    await stage?.close();
  });

  test('sees a turn run, get a title, and end', async () => {
    const session = await createRealSession(opencode);
    const before = Date.now();
    await session.prompt('gate-mid one: Begun. | Done.');
    const running = await world.becomes(session.id, 'busy');
    expect(running.turnBeganMs).toBeGreaterThanOrEqual(before);
    expect(running).toMatchObject({ directory: opencode.directory, waiting: [] });
    await stage.model.waitForGate('one');
    const { atMs } = await stage.model.waitForTurn('gate-mid one: Begun. | Done.');
    await until('its first words to be dated', () => (world.server('one')?.lastEvents.get(session.id) ?? 0) > atMs);
    expect(world.session(session.id)?.state).toBe('busy');
    stage.model.release('one');
    const ended = await world.becomes(session.id, 'idle');
    expect(ended.turnBeganMs).toBe(running.turnBeganMs);
    const { last } = await session.settled();
    expect(ended.sinceMs).toBe(last.info.time.completed);
  });

  test('sees a turn wait for a permission, and continue once a person has allowed it', async () => {
    const session = await createRealSession(opencode, 'With a command');
    await session.prompt('bash: echo from the watcher');
    const { waiting } = await world.becomes(session.id, 'waiting');
    expect(waiting).toMatchObject([{ kind: 'permission', text: 'bash "echo from the watcher"' }]);
    await opencode.json('POST', `/permission/${waiting[0]?.id}/reply`, { reply: 'once' });
    expect(await world.becomes(session.id, 'idle')).toMatchObject({ title: 'With a command', waiting: [] });
  });

  test('sees a question, and the request of a sub-agent at the session that asked', async () => {
    const asking = await createRealSession(opencode, 'With a question');
    await asking.prompt('ask: Which color? | Red | Blue');
    const { waiting } = await world.becomes(asking.id, 'waiting');
    expect(waiting).toMatchObject([{ kind: 'question', text: 'Which color? Red | Blue' }]);
    await opencode.json('POST', `/question/${waiting[0]?.id}/reply`, { answers: [['Blue']] });
    await world.becomes(asking.id, 'idle');

    const root = await createRealSession(opencode, 'With a sub-agent');
    await root.prompt('task: bash: echo from the sub-agent');
    const child = await until('the sub-agent to ask', () =>
      world.server('one')?.sessions.find((one) => one.parentId === root.id && one.state === 'waiting'),
    );
    expect(child.waiting).toMatchObject([{ text: 'bash "echo from the sub-agent"', ofSubAgent: true }]);
    expect(world.session(root.id)).toMatchObject({ state: 'busy', waiting: [] });
    await opencode.json('POST', `/permission/${child.waiting[0]?.id}/reply`, { reply: 'once' });
    await world.becomes(root.id, 'idle');
    await world.becomes(child.id, 'idle');
  });

  test('sees a turn fail with opencode’s error, and another one stopped', async () => {
    const failing = await createRealSession(opencode, 'Without credit');
    await failing.prompt('fail 401');
    expect((await world.becomes(failing.id, 'failed')).reason).toMatch(/^opencode says "/);
    const stopped = await createRealSession(opencode, 'Stopped');
    await stopped.prompt('hang two');
    await world.becomes(stopped.id, 'busy');
    await stopped.abort();
    expect((await world.becomes(stopped.id, 'interrupted')).reason).toBe('it was stopped');
    stage.model.release('two');
  });

  test('sees a retry and its reason', async () => {
    const session = await createRealSession(opencode, 'Busy model');
    await session.prompt('fail 500');
    const { reason } = await world.becomes(session.id, 'retrying');
    expect(reason).toMatch(/^attempt \d+: opencode says "scripted failure 500"$/);
    await session.abort();
    await world.becomes(session.id, 'interrupted');
  });

  test('sees that the process was killed, and how its turn ended once it is back', async () => {
    const session = await createRealSession(opencode, 'Cut');
    await session.prompt('hang three');
    await world.becomes(session.id, 'busy');
    await opencode.kill('SIGKILL');
    expect((await world.becomes(session.id, 'interrupted')).reason).toBe('its server ended while it ran');
    expect(world.server('one')?.checkedMs).toBeUndefined();
    await opencode.restart();
    await world.registry.add(
      { name: 'again', id: 'again', port: opencode.port, cwd: opencode.directory },
      { password: PASSWORD },
    );
    await world.registry.remove('one', 'one');
    await world.followed('again');
    await until('the old one to be left out', () => world.server('one') === undefined);
    expect(await world.becomes(session.id, 'interrupted')).toMatchObject({ title: 'Cut' });
    stage.model.release('three');
    const next = await createRealSession(opencode, 'Next');
    await next.prompt('echo: It works again.');
    await world.becomes(next.id, 'idle');
  });
});
