import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import type { Opencode } from '../rig/opencode.ts';
import { type OpencodeSandbox, openSandbox } from '../rig/opencode-sandbox.ts';
import { OPENCODE_MCP, runShell, shellEnv } from '../rig/shell-command.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../rig/tmux.ts';
import { until, within } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const PASSWORD = 'a password of the instance';
/** The TUI has drawn, and said that it is on the instance. */
const DRAWN = /ctrl\+p commands/;

let stage: Stage;
let opencode: Opencode;
let person: OpencodeSandbox;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  stage = await openStage();
  [opencode, person] = await Promise.all([stage.opencode({ password: PASSWORD }), openSandbox()]);
  await stage.register('worker', opencode, { id: 'worker-id', password: PASSWORD });
  env = { ...person.env, ...shellEnv(person.home, stage.registry.path), OPENCODE_BIN: PINNED_OPENCODE };
});
afterAll(async () => {
  await stage.close();
  await person.close();
});

async function terminal(): Promise<TmuxTerminal> {
  const opened = await openTmux(env, person.home);
  await opened.type(`om() { ${OPENCODE_MCP} "$@"; echo "code $?"; }; clear`, 'Enter');
  return opened;
}

/** Command lines and environments of what a terminal of the person runs, as `ps` shows them. */
async function processes(): Promise<readonly { readonly pid: number; readonly args: string; readonly env: string }[]> {
  const found = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [args, environ] = await Promise.all(
      ['cmdline', 'environ'].map((file) => readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => '')),
    );
    if (environ?.includes(`HOME=${person.home}\0`) === true && args !== undefined)
      found.push({ pid: Number(pid), args: args.replaceAll('\0', ' '), env: environ });
  }
  return found;
}

async function attached(): Promise<{ readonly pid: number; readonly args: string; readonly env: string }> {
  return await until('the TUI to run', async () => (await processes()).find(({ args }) => / attach http/.test(args)));
}

describe('attach', () => {
  test('opens the TUI on the instance, with a password that no command line shows, and passes its end on', async (context) => {
    needTmux(context);
    const { id } = await opencode.json<{ id: string }>('POST', '/session', { title: 'Seen from afar' });
    await using screen = await terminal();
    await screen.type('om attach work "Seen from afar"', 'Enter');
    await screen.shows(DRAWN);
    const tui = await attached();
    expect(tui.args).toContain(`--session ${id}`);
    const secret = /OPENCODE_SERVER_PASSWORD=([^\0]*)/.exec(tui.env)?.[1] ?? '';
    expect(secret).toMatch(/^[\w-]{43}$/);
    const all = (await processes()).map(({ args }) => args).join('\n');
    expect([all.includes(PASSWORD), all.includes(secret)]).toEqual([false, false]);
    expect((await processes()).map((one) => one.env).join('\n')).not.toContain(PASSWORD);
    await screen.type('echo: from the terminal', 'Enter');
    await screen.shows(/from the terminal[^]*from the terminal/);
    expect(stage.model.requests.some(({ text }) => text.includes('echo: from the terminal'))).toBe(true);
    await screen.type('', 'C-c');
    expect(await screen.shows(/code \d+/)).toContain('code 0');
  });
});
