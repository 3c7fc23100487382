import { writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { isMissing, OPENCODES } from '../rig/opencode-binaries.ts';
import { tempDir } from '../rig/temp.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

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

    beforeAll(async () => {
      const plugin = `${temp.path}/plugin.js`;
      await writeFile(plugin, PLUGIN);
      stage = await openStage();
      await stage.register('unknown-model', await stage.opencode({ binary, config: { model: 'nowhere/none' } }));
      // The key is missed before anything is sent; nothing listens there.
      const keyless = { npm: '@ai-sdk/anthropic', options: { baseURL: 'http://127.0.0.1:9/' }, models: { one: {} } };
      await stage.register(
        'no-key',
        await stage.opencode({ binary, config: { model: 'keyless/one', provider: { keyless } } }),
      );
      await stage.register(
        'plugin',
        await stage.opencode({ binary, config: { plugin: [pathToFileURL(plugin).href] } }),
      );
      server = await stage.server({ clientInfo: { name: 'claude-code', version: '2.1.329' } });
    });
    afterAll(async () => {
      await stage.close();
      await temp.close();
    });

    test.each([
      ['unknown-model', 'echo: to nobody', 'Model not found: nowhere/none'],
      ['no-key', 'echo: to nobody without a key', 'API key is missing'],
      ['plugin', 'echo: no-message', 'no message passes here'],
      ['plugin', 'echo: no-turn', 'no turn passes here'],
    ])('%s, %s: its words are told at once', async (instance, message, words) => {
      const sent = await server.call('send', { instance, message });
      expect(data(sent)).toMatchObject({
        outcome: 'failed',
        reason: expect.stringMatching(new RegExp(`^opencode says ".*${words}`)) as string,
      });
      // Before it is taken for one that never began, and sent once more.
      expect(sent.text).not.toContain('did not begin');
    });

    test('and the session is sent to again', async () => {
      expect(data(await server.call('send', { instance: 'plugin', message: 'echo: passes' }))).toMatchObject({
        text: 'passes',
      });
    });
  });
});
