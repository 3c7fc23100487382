import { writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { MODEL_ID, PROVIDER_ID } from '../rig/model/scripted-model.ts';
import { tempDir } from '../rig/temp.ts';
import { CLAUDE_CODE, onEachOpencode, useWorker } from './stage.ts';

const temp = tempDir('opencode-mcp-failures');
const plugin = `${temp.path}/plugin.js`;
beforeAll(() =>
  writeFile(
    plugin,
    `export const Rig = async () => ({
  'chat.message': async (input, output) => {
    if (JSON.stringify(output.parts).includes('no-message')) throw new Error('no message passes here');
  },
  'experimental.chat.messages.transform': async (input, output) => {
    if (JSON.stringify(output.messages.at(-1)).includes('no-turn')) throw new Error('no turn passes here');
  },
});
`,
  ),
);
afterAll(() => temp.close());

const SCRIPTED = { model: `${PROVIDER_ID}/${MODEL_ID}` };
// The key is missed before anything is sent; nothing listens there.
const keyless = { npm: '@ai-sdk/anthropic', options: { baseURL: 'http://127.0.0.1:9/' }, models: { one: {} } };
const config = { model: 'nowhere/none', provider: { keyless }, plugin: [pathToFileURL(plugin).href] };

/** opencode reports such a failure only in one event, and stores no message about it. */
onEachOpencode('a turn that fails without an answer', (binary) => {
  const { call, data, newSession } = useWorker({ binary, config }, CLAUDE_CODE);

  test.each([
    ['Model not found: nowhere/none', 'echo: to nobody', {}],
    ['API key is missing', 'echo: to nobody without a key', { model: 'keyless/one' }],
    ['no message passes here', 'echo: no-message', SCRIPTED],
    ['no turn passes here', 'echo: no-turn', SCRIPTED],
  ])('is reported immediately: %s', async (words, message, model) => {
    const session_id = await newSession();
    const sent = await call('send', { session_id, message, ...model });
    expect(sent.result.structuredContent).toMatchObject({
      outcome: 'failed',
      reason: expect.stringMatching(new RegExp(`^opencode says ".*${words}`)) as string,
    });
    // The send did not take it for a turn that never began, and did not repeat the message.
    expect(sent.text).not.toContain('did not begin');
    expect(await data('send', { session_id, message: 'echo: passes', ...SCRIPTED })).toMatchObject({ text: 'passes' });
  });
});
