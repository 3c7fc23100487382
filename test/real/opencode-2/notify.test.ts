import { dirname, join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { announce } from '../../rig/announce.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { type Preview, startPreview } from '../../rig/opencode/opencode-preview.ts';
import { type ScriptedModel, startScriptedModel } from '../../rig/model/scripted-model.ts';
import { openWatchCommand, type WatchCommand } from '../watch-command.ts';

describe.skipIf(isMissing(PREVIEW_OPENCODE))('opencode-mcp watch beside the preview of OpenCode 2', () => {
  let model: ScriptedModel;
  let preview: Preview;
  let watch: WatchCommand;

  beforeAll(async () => {
    model = await startScriptedModel();
    preview = await startPreview({ model, registered: true });
    announce(preview);
    watch = await openWatchCommand(join(preview.home, 'registry'), { XDG_STATE_HOME: dirname(preview.stateDir) });
    await watch.start();
  });
  afterAll(async () => {
    await watch?.[Symbol.asyncDispose]();
    await preview?.close();
    await model?.close();
  });

  async function prompt(text: string): Promise<string> {
    const { data } = await preview.json<{ data: { id: string } }>('POST', '/api/session', {
      location: { directory: preview.directory },
    });
    await preview.json('POST', `/api/session/${data.id}/prompt`, { prompt: { text }, delivery: 'queue' });
    return data.id;
  }

  test('notifies of a permission with its exact command, of its answer, and of the end of the turn', async () => {
    const id = await prompt('bash: echo from the phone');
    const asked = await watch.says(/^Permission: /);
    expect(asked.message).toContain(`bash "echo from the phone"\n`);
    expect(asked.message).toContain(preview.directory);
    const [request] = (await preview.json<{ data: readonly { id: string }[] }>('GET', `/api/session/${id}/permission`))
      .data;
    await preview.api(`/api/session/${id}/permission/${request?.id}/reply`, {
      method: 'POST',
      body: { reply: 'once' },
    });
    expect((await watch.says(/^Settled: /)).sequence_id).toBe(asked.sequence_id);
    await watch.says(/^Done: /);
  });

  test('notifies of a question with its options', async () => {
    await prompt('ask: Which color? | Red | Blue');
    expect((await watch.says(/^Question: /)).message).toMatch(/^Which color\? Red \| Blue\n/);
  });
});
