import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { TOOLSETS, type Toolset } from '../../src/config/settings.ts';
import { listTool } from '../../src/mcp/tools/listing.ts';
import { listedTools } from '../../src/mcp/tools/listed-tools.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';

/** The whole list is in the context of each conversation. */
const MAX_LIST_BYTES = 12 * 1024;

/** In the order of tools/list. */
const BY_TOOLSET: Readonly<Record<Toolset, readonly string[]>> = {
  core: ['instances', 'send', 'read', 'respond', 'wait'],
  instances: ['list_instances', 'refresh_instances'],
  sessions: [
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
  inspect: ['get_diff', 'list_files', 'read_file', 'search'],
};

const listed = TOOLS.map((tool) => listTool(tool));

describe('tools/list', () => {
  test('stays under 12 KB', () => {
    expect(Buffer.byteLength(JSON.stringify({ tools: listed }))).toBeLessThan(MAX_LIST_BYTES);
  });

  const names = async (...settings: Parameters<typeof listedTools>): Promise<string[]> =>
    (await listedTools(...settings)).map(({ name }) => name);

  test('has every tool in one fixed order, whatever the order of the toolsets in the settings', async () => {
    const all = Object.values(BY_TOOLSET).flat();
    expect(listed.map(({ name }) => name)).toEqual(all);
    expect(await names(['inspect', 'sessions', 'core', 'instances'], false)).toEqual(all);
  });

  test.each(Object.entries(BY_TOOLSET))('has only these tools with --toolsets %s', async (toolset, expected) => {
    expect(await names([toolset as Toolset], false)).toEqual(expected);
  });

  test('has only read-only tools with --read-only', async () => {
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

test.each(listed)('$name has a description, hints, and schemas without additions of the generator', (tool) => {
  const { description, annotations, inputSchema, outputSchema } = tool;
  expect(description).toMatch(/^[A-Z].*\.$/);
  expect(annotations).toMatchObject({ readOnlyHint: expect.any(Boolean), openWorldHint: true });
  // A client assumes that a tool that writes is destructive, so the hint must be explicit.
  if (annotations?.readOnlyHint === false) expect(annotations.destructiveHint).toBeTypeOf('boolean');
  expect(inputSchema.type).toBe('object');
  expect(outputSchema?.type).toBe('object');
  expect(JSON.stringify({ inputSchema, outputSchema })).not.toMatch(/\$schema|9007199254740991/);
});

test('the core tools describe their results', () => {
  for (const { name, outputSchema } of listed.slice(0, 3))
    expect(Object.keys(outputSchema?.properties ?? {}), name).not.toHaveLength(0);
});

test.each(TOOLS)('$name accepts exactly its listed input', ({ name, input }) => {
  const { inputSchema } = listed.find((tool) => tool.name === name) ?? {};
  const shape = Object.entries<z.ZodType>(input.shape);
  const needed = shape.filter(([, schema]) => !schema.safeParse(undefined).success).map(([key]) => key);
  expect(inputSchema).toMatchObject({
    additionalProperties: false,
    properties: Object.fromEntries(shape.map(([key]) => [key, {}])),
  });
  expect(inputSchema?.required?.toSorted() ?? []).toEqual(needed.toSorted());
  const args = Object.fromEntries(needed.map((key) => [key, 'x']));
  expect(input.safeParse(args).success).toBe(true);
  expect(input.safeParse({ ...args, sesion_id: 'x' }).error?.issues).toMatchObject([
    { code: 'unrecognized_keys', keys: ['sesion_id'] },
  ]);
});

test.each(TOOLS)('the listed output of $name is no stricter than the full schema', ({ name, output }) => {
  const full = z.toJSONSchema(output, { io: 'output' });
  expect(stricterParts(listed.find((tool) => tool.name === name)?.outputSchema, full, name)).toEqual([]);
});

interface Schema {
  readonly type?: unknown;
  readonly properties?: Readonly<Record<string, unknown>>;
  readonly required?: readonly string[];
  readonly items?: unknown;
}

/** Where `trimmed` refuses values that `full` allows: other types, more required properties, unknown properties. */
function stricterParts(trimmed: unknown, full: unknown, at: string): string[] {
  const [short, long] = [trimmed as Schema, full as Schema];
  const problems: string[] = [];
  if (short.type !== long.type) problems.push(`${at}: type ${String(short.type)}, full ${String(long.type)}`);
  for (const key of short.required ?? []) {
    if (!(long.required ?? []).includes(key)) problems.push(`${at}.${key}: required, in full optional`);
  }
  for (const [key, property] of Object.entries(short.properties ?? {})) {
    const other = long.properties?.[key];
    if (other === undefined) problems.push(`${at}.${key}: unknown to the full schema`);
    else problems.push(...stricterParts(property, other, `${at}.${key}`));
  }
  if (short.items !== undefined) problems.push(...stricterParts(short.items, long.items ?? {}, `${at}[]`));
  return problems;
}
