import { describe, expect, test } from 'vitest';

import { TOOLSETS } from '../../src/config/settings.ts';
import { listedTools } from '../../src/mcp/tools/listed-tools.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';

const names = async (...given: Parameters<typeof listedTools>): Promise<string[]> =>
  (await listedTools(...given)).map(({ name }) => name);

describe('the tools that the switches leave', () => {
  test('every tool by default', async () => {
    expect(await names(TOOLSETS, false)).toEqual(TOOLS.map(({ name }) => name));
  });

  test.each([
    ['core', ['instances', 'send', 'read', 'respond', 'wait']],
    ['instances', ['list_instances', 'refresh_instances']],
    [
      'sessions',
      [
        'list_sessions',
        'get_session',
        'create_session',
        'send_message',
        'get_status',
        'abort_session',
        'fork_session',
        'rename_session',
        'delete_session',
      ],
    ],
    ['inspect', ['get_diff', 'list_files', 'read_file', 'search']],
  ] as const)('toolset %s', async (toolset, expected) => {
    expect(await names([toolset], false)).toEqual(expected);
  });

  test('each tool is in exactly one toolset', async () => {
    const all = (await Promise.all(TOOLSETS.map((toolset) => names([toolset], false)))).flat();
    expect(all.toSorted()).toEqual(TOOLS.map(({ name }) => name).toSorted());
  });

  test('read-only leaves what changes nothing on an instance', async () => {
    expect(await names(TOOLSETS, true)).toEqual([
      'instances',
      'read',
      'wait',
      'list_instances',
      'refresh_instances',
      'list_sessions',
      'get_session',
      'get_status',
      'get_diff',
      'list_files',
      'read_file',
      'search',
    ]);
    expect(await names(['core'], true)).toEqual(['instances', 'read', 'wait']);
  });
});
