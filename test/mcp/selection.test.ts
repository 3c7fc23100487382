import { describe, expect, test } from 'vitest';

import { TOOLSETS } from '../../src/config/settings.ts';
import { selectTools, TOOLS } from '../../src/mcp/tools.ts';

const names = (...given: Parameters<typeof selectTools>): string[] => selectTools(...given).map(({ name }) => name);

describe('the tools that the switches leave', () => {
  test('every tool by default', () => {
    expect(selectTools(TOOLSETS, false)).toEqual(TOOLS);
  });

  test.each([
    ['core', ['instances', 'send', 'read']],
    ['instances', ['list_instances', 'refresh_instances']],
    ['sessions', ['list_sessions', 'get_session', 'create_session', 'send_message', 'get_status', 'abort_session']],
  ] as const)('toolset %s', (toolset, expected) => {
    expect(names([toolset], false)).toEqual(expected);
  });

  test('each tool is in exactly one toolset', () => {
    const all = TOOLSETS.flatMap((toolset) => names([toolset], false));
    expect(all.toSorted()).toEqual(TOOLS.map(({ name }) => name).toSorted());
  });

  test('read-only leaves what changes nothing on an instance', () => {
    expect(names(TOOLSETS, true)).toEqual([
      'instances',
      'read',
      'list_instances',
      'refresh_instances',
      'list_sessions',
      'get_session',
      'get_status',
    ]);
    expect(names(['core'], true)).toEqual(['instances', 'read']);
  });
});
