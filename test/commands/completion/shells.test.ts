import { existsSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest';

import { missingProgram, skipFor } from '../../rig/needed.ts';
import { OPENCODE_MCP, shellEnv } from '../../rig/programs/shell-command.ts';
import { type TempDir, tempDir } from '../../rig/temp.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../../rig/programs/tmux.ts';

const HOSTILE = 'it\'s "so" $(touch pwned) `touch pwned` \\ !x ;*? ~ end';
const NAMES = [
  'plain',
  'two words',
  HOSTILE,
  'desk:service',
  'name@host:4096',
  '-dash',
  'bad\u001b[31mname',
  'ünïcode',
];

let temp: TempDir;
let env: Readonly<Record<string, string>>;

/** Installs an `opencode-mcp` that prints its arguments, and runs the real one only for completion. */
beforeAll(async () => {
  temp = tempDir('opencode-mcp-completion');
  const bin = join(temp.path, 'bin');
  const registry = join(temp.path, 'registry');
  const state = join(temp.path, '.local', 'state', 'opencode-mcp');
  for (const folder of [bin, registry, state]) await mkdir(folder, { recursive: true, mode: 0o700 });
  const program = `#!/bin/sh
case $1 in __complete|completion) exec ${OPENCODE_MCP} "$@" ;; esac
printf 'got'; printf '<%s>' "$@"; echo
`;
  await writeFile(join(bin, 'opencode-mcp'), program);
  await chmod(join(bin, 'opencode-mcp'), 0o755);
  await writeFile(join(state, 'names.json'), JSON.stringify(NAMES));
  await writeFile(join(registry, 'new.json'), JSON.stringify({ name: 'just-registered', port: 4096 }));
  const baseEnv = shellEnv(temp.path, registry);
  env = { ...baseEnv, PATH: `${bin}:${baseEnv['PATH']}` };
});
afterAll(() => temp.close());

function needShell(shell: string, context: TestContext): void {
  needTmux(context);
  skipFor(context, missingProgram(shell));
}

/** Starts each shell without the user's settings. */
const STARTS = {
  bash: 'source <(opencode-mcp completion bash)',
  zsh: `exec zsh -f`,
  fish: 'exec fish --no-config',
} as const;
/** Loads the completion; for bash, `STARTS` does. */
const LOADS = {
  bash: '',
  zsh: "PS1='$ '; autoload -Uz compinit; compinit -u -D; source <(opencode-mcp completion zsh)",
  fish: 'function fish_prompt; echo "\\$ "; end; function fish_greeting; end; opencode-mcp completion fish | source',
} as const;

async function openShell(shell: keyof typeof STARTS): Promise<TmuxTerminal> {
  const screen = await openTmux(env, temp.path);
  await screen.resize(180, 40);
  await screen.type(STARTS[shell], 'Enter');
  if (LOADS[shell] !== '') await screen.type(LOADS[shell], 'Enter');
  await screen.type('clear', 'Enter');
  return screen;
}

const SHELLS = Object.keys(STARTS) as (keyof typeof STARTS)[];

test.for(SHELLS)('%s completes any names, commands and options', async (shell, context) => {
  needShell(shell, context);
  await using screen = await openShell(shell);
  const cases: readonly (readonly [string, string])[] = [
    ['read pla', '<read><plain>'],
    ['attach two', '<attach><two words>'],
    ["attach 'two", '<attach><two words>'],
    ['read it', `<read><${HOSTILE}>`],
    ['read "it', `<read><${HOSTILE}>`],
    ['open desk:s', '<open><desk:service>'],
    ['open na', '<open><name@host:4096>'],
    ['wait plain ün', '<wait><plain><ünïcode>'],
    ['send jus', '<send><just-registered>'],
    ['resp', '<respond>'],
    ['send plain --inter', '<send><plain><--interrupt>'],
    ['respond plain --reply on', '<respond><plain><--reply><once>'],
  ];
  for (const [line, expected] of cases) {
    await screen.type(`opencode-mcp ${line}`, 'Tab');
    // The shell has replaced the word, or added a space, before it reads Enter.
    await screen.type('', 'Enter');
    const shown = await screen.shows(/got<.*>/);
    expect(/got(<.*>)/.exec(shown)?.[1]).toBe(expected);
    await screen.type('clear', 'Enter');
    await screen.shows(/^(?![^]*got<)/);
  }
  expect(existsSync(join(temp.path, 'pwned'))).toBe(false);
});
