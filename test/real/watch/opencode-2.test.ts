import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { announce } from '../../rig/announce.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { type Preview, startPreview } from '../../rig/opencode/opencode-preview.ts';
import { createProject } from '../../rig/opencode/opencode-sandbox.ts';
import { type ScriptedModel, startScriptedModel } from '../../rig/model/scripted-model.ts';
import { until } from '../../rig/wait.ts';
import { openWatchWorld, type WatchWorld } from '../../watch/world.ts';

describe.skipIf(isMissing(PREVIEW_OPENCODE))('a watcher of the preview of OpenCode 2', () => {
  let model: ScriptedModel;
  let preview: Preview;
  let world: WatchWorld;
  let idle: string;

  beforeAll(async () => {
    model = await startScriptedModel();
    preview = await startPreview({ model, registered: true });
    announce(preview);
    idle = join(preview.home, 'idle');
    await createProject(idle);
    await mkdir(join(idle, '.opencode', 'plugin'), { recursive: true });
    const source = `import { writeFileSync } from 'node:fs';\nwriteFileSync(${JSON.stringify(join(idle, 'loaded'))}, '');\nexport default async () => ({});\n`;
    await writeFile(join(idle, '.opencode', 'plugin', 'canary.js'), source);
    await open(idle);
    world = await openWatchWorld({ opencodeStateDir: preview.stateDir });
    await world.followed('server');
  });
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]();
    await preview?.close();
    await model?.close();
  });

  async function open(directory = preview.directory): Promise<string> {
    const { data } = await preview.json<{ data: { id: string } }>('POST', '/api/session', { location: { directory } });
    return data.id;
  }

  async function prompt(text: string): Promise<string> {
    const id = await open();
    await preview.json('POST', `/api/session/${id}/prompt`, { prompt: { text }, delivery: 'queue' });
    return id;
  }

  test('reports a turn as running and then as ended', async () => {
    const before = Date.now();
    const id = await prompt('gate-mid one: Begun. | Done.');
    const running = await world.becomes(id, 'busy');
    expect(running).toMatchObject({ directory: preview.directory, waiting: [] });
    expect(running.turnBeganMs).toBeGreaterThanOrEqual(before);
    await model.waitForGate('one');
    const { atMs } = await model.waitForTurn('gate-mid one: Begun. | Done.');
    await until('its first words to be dated', () => (world.server('server')?.lastEvents.get(id) ?? 0) > atMs);
    model.release('one');
    expect(await world.becomes(id, 'idle')).toMatchObject({ waiting: [] });
  });

  test('reports a turn that waits for a permission, and that it continues once the permission is given', async () => {
    const id = await prompt('bash: echo from the watcher');
    const { waiting } = await world.becomes(id, 'waiting');
    expect(waiting).toMatchObject([{ kind: 'permission', text: 'bash "echo from the watcher"' }]);
    await preview.api(`/api/session/${id}/permission/${waiting[0]?.id}/reply`, {
      method: 'POST',
      body: { reply: 'once' },
    });
    await world.becomes(id, 'idle');
    const asking = await prompt('ask: Which color? | Red | Blue');
    const question = (await world.becomes(asking, 'waiting')).waiting[0];
    expect(question).toMatchObject({ kind: 'question', text: 'Which color? Red | Blue' });
    await preview.api(`/api/session/${asking}/question/${question?.id}/reply`, {
      method: 'POST',
      body: { answers: [['Blue']] },
    });
    await world.becomes(asking, 'idle');
  });

  test('reports a failed turn and an aborted turn', async () => {
    const failing = await prompt('fail 401');
    expect((await world.becomes(failing, 'failed')).reason).toMatch(/^opencode says "/);
    const stopped = await prompt('gate-mid two: Begun. | Done.');
    await model.waitForGate('two');
    await world.becomes(stopped, 'busy');
    await preview.api(`/api/session/${stopped}/interrupt`, { method: 'POST' });
    expect((await world.becomes(stopped, 'interrupted')).reason).toBeDefined();
    model.release('two');
    // The preview sends no event for this.
    const early = await prompt('gate early: Done.');
    await model.waitForGate('early');
    await world.becomes(early, 'busy');
    await preview.api(`/api/session/${early}/interrupt`, { method: 'POST' });
    await world.becomes(early, 'interrupted');
    model.release('early');
  });

  test('reports that the process was killed, and after a restart how its turn ended', async () => {
    const id = await prompt('gate-mid three: Begun. | Done.');
    await model.waitForGate('three');
    await world.becomes(id, 'busy');
    await preview.kill9();
    await until('it to be known', () => world.server('server')?.checkedMs === undefined);
    await preview.restart();
    await world.followed('server');
    await world.becomes(id, 'interrupted');
    model.release('three');
    await world.becomes(await prompt('echo: It works again.'), 'idle');
  });

  test('loads no directory in which no session runs', () => {
    expect(world.server('server')?.instances.map(({ directory }) => directory)).toContain(idle);
    expect(existsSync(join(idle, 'loaded'))).toBe(false);
  });
});
