// npm run docs: writes docs/tools.md from the tools and docs/settings.md from the settings. `--check` writes nothing and fails if a page
// is out of date.
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import * as z from 'zod';

import { type Row, rowsOf } from '../src/config/options.ts';
import { TOOLSETS } from '../src/config/settings.ts';
import { TOOLS } from '../src/mcp/tools/tools.ts';

const GENERATED = '<!-- Written by npm run docs. -->';

const pages: Readonly<Record<string, string>> = { 'tools.md': toolsPage(), 'settings.md': settingsPage() };
for (const [name, page] of Object.entries(pages)) {
  const path = fileURLToPath(new URL(`../docs/${name}`, import.meta.url));
  if (!process.argv.includes('--check')) writeFileSync(path, page);
  else if (readFileSync(path, 'utf8') !== page) {
    process.stderr.write(`docs/${name} is out of date; run: npm run docs\n`);
    process.exitCode = 1;
  }
}

function toolsPage(): string {
  const sections = TOOLSETS.map((toolset) => {
    const tools = TOOLS.filter((tool) => tool.toolset === toolset);
    return [`## ${toolset}`, ...tools.map(toolSection)].join('\n\n');
  });
  return `${[
    '# Tools',
    GENERATED,
    'The tools of the MCP server. `--toolsets core` (or `OPENCODE_MCP_TOOLSETS`) offers only the named sets; `--read-only` offers only tools that change nothing.\n' +
      'See also [instances, names and states](instances.md), [sending work](sending.md) and [permissions](permissions.md).',
    ...sections,
  ].join('\n\n')}\n`;
}

interface InputSchema {
  readonly properties?: Readonly<Record<string, Property>>;
  readonly required?: readonly string[];
}

interface Property {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Property[];
  readonly items?: Property;
  readonly description?: string;
  readonly default?: unknown;
}

function toolSection({ name, description, annotations, input }: (typeof TOOLS)[number]): string {
  const { properties = {}, required = [] } = z.toJSONSchema(input, { io: 'input' }) as InputSchema;
  const rows = Object.entries(properties).map(([key, property]) => {
    const words = [
      property.description,
      property.default === undefined ? undefined : `default: ${JSON.stringify(property.default)}`,
    ].filter((one) => one !== undefined);
    return `| \`${key}\`${required.includes(key) ? '' : ' (optional)'} | ${typeOf(property)} | ${words.join('; ')} |`;
  });
  const table = rows.length === 0 ? 'No input.' : ['| input | type | |', '|---|---|---|', ...rows].join('\n');
  return `### ${name}\n\n${description}${annotations.readOnlyHint ? ' Changes nothing.' : ''}\n\n${table}`;
}

function typeOf({ type, enum: values, anyOf, items }: Property): string {
  if (values !== undefined) return values.map((value) => `\`${value}\``).join(', ');
  if (anyOf !== undefined) return anyOf.map(typeOf).join(' or ');
  if (type === 'array') return `list of ${typeOf(items ?? {})}`;
  return type ?? 'any';
}

function settingsPage(): string {
  return `${[
    '# Settings',
    GENERATED,
    'Set each as a flag, as an environment variable, or as a key of the configuration file `~/.config/opencode-mcp/config.json`; the first in this\n' +
      'order counts. An invalid value ends the program with a message that names it. `opencode-mcp help settings` has the same list.',
    '## opencode-mcp',
    settingsTable(rowsOf('opencode-mcp')),
    '## opencode-connected',
    settingsTable(rowsOf('opencode-connected')),
    'A SECRET in the configuration file is a string, `{"env": NAME}`, `{"file": PATH}` or `{"command": [PROGRAM, ARGUMENT, …]}`.',
  ].join('\n\n')}\n`;
}

function settingsTable(rows: readonly Row[]): string {
  const lines = rows.map(({ flag, isSwitch, placeholder, env, key, summary, defaultText }) => {
    const long = flag === undefined ? '' : code(isSwitch === true ? `--${flag}` : `--${flag} ${placeholder ?? ''}`);
    const cells = [long, env && code(env), key && code(key), defaultText && code(defaultText), escaped(summary)];
    return `| ${cells.map((cell) => cell ?? '').join(' | ')} |`;
  });
  return ['| flag | environment | key | default | |', '|---|---|---|---|---|', ...lines].join('\n');
}

function code(text: string): string {
  return `\`${escaped(text)}\``;
}

function escaped(text: string): string {
  return text.replaceAll('|', String.raw`\|`);
}
