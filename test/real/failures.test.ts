import { writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { isMissing, OPENCODES } from '../rig/opencode-binaries.ts';
import { MODEL_ID, PROVIDER_ID } from '../rig/scripted-model.ts';
import { tempDir } from '../rig/temp.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

const SCRIPTED = `${PROVIDER_ID}/${MODEL_ID}`;
const PLUGIN = `export const Rig = async () => ({
  'chat.message': async (input, output) => {
    if (JSON.stringify(output.parts).includes('no-message')) throw new Error('no message passes here');
  },
  'experimental.chat.messages.transform': async (input, output) => {
    if (JSON.stringify(output.messages.at(-1)).includes('no-turn')) throw new Error('no turn passes here');
  },
});
`;

/** What opencode says only once, in an event: no message of it is stored. */
describe.each(OPENCODES)('a turn that fails on the $name without an answer', ({ binary }) => {
  describe.skipIf(isMissing(binary))('', () => {
    const temp = tempDir('opencode-mcp-failures');
    let stage: Stage;
    let server: McpChild;
    let session_id: string;

    beforeAll(async () => {
      const plugin = `${temp.path}/plugin.js`;
      await writeFile(plugin, PLUGIN);
      stage = await openStage();
      // The key is missed before anything is sent; nothing listens there.
      const keyless = { npm: '@ai-sdk/anthropic', options: { baseURL: 'http://127.0.0.1:9/' }, models: { one: {} } };
      const config = { model: 'nowhere/none', provider: { keyless }, plugin: [pathToFileURL(plugin).href] };
      await stage.register('worker', await stage.opencode({ binary, config }));
      server = await stage.server({ clientInfo: { name: 'claude-code', version: '2.1.329' } });
    });
    afterAll(async () => {
      await stage.close();
      await temp.close();
    });

    test.each([
      ['Model not found: nowhere/none', 'echo: to nobody', {}],
      ['API key is missing', 'echo: to nobody without a key', { model: 'keyless/one' }],
      ['no message passes here', 'echo: no-message', { model: SCRIPTED }],
      ['no turn passes here', 'echo: no-turn', { model: SCRIPTED }],
    ])('%s: told at once', async (words, message, model) => {
      const created = data(await server.call('create_session', { instance: 'worker' }));
      session_id = (created['session'] as { readonly id: string }).id;
      const sent = await server.call('send', { instance: 'worker', session_id, message, ...model });
      expect(data(sent)).toMatchObject({
        outcome: 'failed',
        reason: expect.stringMatching(new RegExp(`^opencode says ".*${words}`)) as string,
      });
      // Before it is taken for one that never began, and sent once more.
      expect(sent.text).not.toContain('did not begin');
    });

    test('and the session is sent to again', async () => {
      const send = { instance: 'worker', session_id, message: 'echo: passes', model: SCRIPTED };
      expect(data(await server.call('send', send))).toMatchObject({ text: 'passes' });
    });
  });
});
