import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { TOOLSETS, type Toolset } from '../../src/config/settings.ts';
import { listTool } from '../../src/mcp/tools/listing.ts';
import { listedTools } from '../../src/mcp/tools/listed-tools.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';

/** Every byte is in the context of each conversation. */
const MAX_LIST_BYTES = 12 * 1024;

/** In the order of tools/list: first the tools of the original. */
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

  test('has only the tools that change nothing with --read-only', async () => {
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

describe.each(listed)('$name as it is listed', ({ description, annotations, inputSchema, outputSchema }) => {
  test('says what it does, and whether it changes anything', () => {
    expect(description).toMatch(/^[A-Z].*\.$/);
    expect(annotations).toMatchObject({ readOnlyHint: expect.any(Boolean) as boolean, openWorldHint: true });
    // A client assumes that a tool that writes is destructive, so the hint must be explicit.
    if (annotations?.readOnlyHint === false) expect(annotations.destructiveHint).toBeTypeOf('boolean');
  });

  test('has object schemas, a closed input, and nothing that only the generator adds', () => {
    expect(inputSchema).toMatchObject({ type: 'object', additionalProperties: false });
    expect(outputSchema).toMatchObject({ type: 'object' });
    expect(JSON.stringify({ inputSchema, outputSchema })).not.toMatch(/\$schema|9007199254740991/);
  });
});

test('the core tools describe their results', () => {
  for (const { name, outputSchema } of listed.slice(0, 3))
    expect(Object.keys(outputSchema?.properties ?? {}), name).not.toHaveLength(0);
});

describe.each(TOOLS)('the input of $name', ({ name, input }) => {
  const required = Object.fromEntries(
    Object.entries(input.shape)
      .filter(([, schema]) => !(schema as z.ZodType).safeParse(undefined).success)
      .map(([key]) => [key, 'x']),
  );

  test('accepts only the required arguments', () => {
    expect(input.safeParse(required).success).toBe(true);
  });

  test('refuses an unknown argument, as the listed schema does', () => {
    const refused = input.safeParse({ ...required, sesion_id: 'x' });
    expect(refused.error?.issues).toMatchObject([{ code: 'unrecognized_keys', keys: ['sesion_id'] }]);
    expect(listed.find((tool) => tool.name === name)?.inputSchema).toMatchObject({
      additionalProperties: false,
      properties: Object.fromEntries(Object.keys(input.shape).map((key) => [key, {}])),
    });
  });

  test('lists the required arguments as required', () => {
    const { required: listedAs = [] } = listed.find((tool) => tool.name === name)?.inputSchema ?? {};
    expect(listedAs.toSorted()).toEqual(Object.keys(required).toSorted());
  });
});

describe.each(TOOLS)('the output of $name as it is listed', ({ name, output }) => {
  test('is no stricter than the full schema', () => {
    const full = z.toJSONSchema(output, { io: 'output' });
    const problems = stricter(listed.find((tool) => tool.name === name)?.outputSchema, full, name);
    expect(problems).toEqual([]);
  });
});

interface Schema {
  readonly type?: unknown;
  readonly properties?: Readonly<Record<string, unknown>>;
  readonly required?: readonly string[];
  readonly items?: unknown;
}

/** How `trimmed` refuses what `full` allows: other types, more required properties, unknown properties. */
function stricter(trimmed: unknown, full: unknown, at: string): string[] {
  const [ours, theirs] = [trimmed as Schema, full as Schema];
  const problems: string[] = [];
  if (ours.type !== theirs.type) problems.push(`${at}: type ${String(ours.type)}, full ${String(theirs.type)}`);
  for (const key of ours.required ?? []) {
    if (!(theirs.required ?? []).includes(key)) problems.push(`${at}.${key}: required, in full optional`);
  }
  for (const [key, property] of Object.entries(ours.properties ?? {})) {
    const other = theirs.properties?.[key];
    if (other === undefined) problems.push(`${at}.${key}: unknown to the full schema`);
    else problems.push(...stricter(property, other, `${at}.${key}`));
  }
  if (ours.items !== undefined) problems.push(...stricter(ours.items, theirs.items ?? {}, `${at}[]`));
  return problems;
}
