import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startRawServer } from '../mcp/raw-server.ts';
import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';

let temp: TempDir;

/** The built launcher with only one of the two files that it loads. */
async function programWith(part: 'serve' | 'command'): Promise<string> {
  const folder = join(temp.path, part);
  await mkdir(folder);
  await writeFile(join(folder, 'package.json'), '{"type":"module"}');
  for (const name of ['opencode-mcp.js', `opencode-mcp-${part}.js`])
    await copyFile(join(dirname(SERVER_SCRIPT), name), join(folder, name));
  return join(folder, 'opencode-mcp.js');
}

let parts: Readonly<Record<'serve' | 'command', string>>;

beforeAll(async () => {
  temp = tempDir('launch');
  parts = { serve: await programWith('serve'), command: await programWith('command') };
});
afterAll(async () => {
  await temp.close();
});

describe('the built program', () => {
  test.each([[[]], [['serve', '--read-only']]])('serves without loading the commands: %j', async (args) => {
    await using server = startRawServer({ script: parts.serve, args, env: NO_MULTICAST });
    server.write({ jsonrpc: '2.0', id: 1, method: 'ping' });
    expect(await server.answerTo(1)).toMatchObject({ result: {} });
  });

  test.each([
    [['--version'], /^\d+\.\d+\.\d+$/],
    [['--help'], /opencode-mcp finds/],
    [['serve', '--help'], /serve/],
    [['list', '--json'], /"instances"/],
  ])('runs a command without loading the server: %j', async (args, output) => {
    await using server = startRawServer({ script: parts.command, args, env: NO_MULTICAST });
    server.endInput();
    expect((await server.exited).code).toBe(0);
    expect([...server.stdout, server.rest].join('\n').trim()).toMatch(output);
  });
});
