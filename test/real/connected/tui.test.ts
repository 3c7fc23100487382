import { readFile, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { defaultName } from '../../../src/identity/default-name.ts';
import { connectedEnvironment, CONNECTED_SCRIPT, filesIn } from '../../rig/connected-child.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox } from '../../rig/opencode-sandbox.ts';
import { processesIn } from '../../rig/processes.ts';
import { tempDir } from '../../rig/temp.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../../rig/tmux.ts';
import { until } from '../../rig/wait.ts';

const WRAPPER = `${process.execPath} ${CONNECTED_SCRIPT}`;
const READY = /Ask anything/;

interface Stage extends AsyncDisposable {
  readonly terminal: TmuxTerminal;
  readonly sandbox: OpencodeSandbox;
  readonly registry: string;
  registered(): Promise<void>;
  nothingLeft(): Promise<void>;
  opencode(): Promise<number>;
}

async function openStage(extra: Readonly<Record<string, string>> = {}): Promise<Stage> {
  const sandbox = await openSandbox();
  const registry = join(sandbox.home, 'registry');
  const env = { ...connectedEnvironment(sandbox, registry), ...extra };
  const terminal = await openTmux(env, sandbox.directory);
  const commands = async (): Promise<ReadonlyMap<number, string>> => {
    const pids = await processesIn(env['TMPDIR'] ?? '');
    const lines = pids.map(
      async (pid) => [pid, await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')] as const,
    );
    return new Map(await Promise.all(lines));
  };
  return {
    terminal,
    sandbox,
    registry,
    async registered() {
      await until('a registration', async () => (await filesIn(registry)).some((path) => path.endsWith('.json')));
    },
    async nothingLeft() {
      await until('nothing to be left', async () => {
        const left = [...(await commands()).values()].filter((command) => !command.startsWith('bash'));
        return left.length === 0 && (await filesIn(registry)).length === 0;
      });
    },
    async opencode() {
      const found = [...(await commands())].find(
        ([, command]) => /opencode.*--port/.test(command) && !/\.js/.test(command),
      );
      if (found === undefined) throw new Error('opencode does not run');
      return found[0];
    },
    async [Symbol.asyncDispose]() {
      await terminal.close();
      await sandbox.close();
    },
  };
}

/** Types a command and resolves with its output. */
async function ask(terminal: TmuxTerminal, command: string, mark: string): Promise<string> {
  await terminal.type(`clear; ${command}; echo "${mark}""="`, 'Enter');
  const screen = await terminal.shows(new RegExp(`^${mark}=`, 'm'));
  return screen.slice(0, screen.indexOf(`${mark}=`)).trim();
}

describe.skipIf(isMissing(PINNED_OPENCODE))('opencode-connected in a terminal', () => {
  test('opencode draws, takes keys, follows the size, stops by Ctrl-Z, and ends; the terminal is as before', async (context) => {
    needTmux(context);
    await using stage = await openStage();
    const { terminal } = stage;
    const before = await ask(terminal, 'stty -a', 'before');
    // As an alias of opencode: from elsewhere, with the directory to work in.
    await terminal.type(`clear; cd /; ${WRAPPER} ${stage.sandbox.directory}`, 'Enter');
    await terminal.shows(READY);
    await stage.registered();
    const file = (await filesIn(stage.registry)).find((path) => path.endsWith('.json')) ?? '';
    expect(basename(file)).toBe(`${defaultName(hostname(), stage.sandbox.directory)}.json`);
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({ cwd: stage.sandbox.directory });
    await terminal.type('typed "by hand"');
    await terminal.shows(/typed "by hand"/);
    await terminal.resize(70, 24);
    // The last line has the directory, and the version at its right edge.
    await until('the last line to be 70 wide', async () =>
      (await terminal.screen())
        .split('\n')
        .some((line) => /\d+\.\d+\.\d+\s*$/.test(line) && line.trimEnd().length <= 70),
    );
    await terminal.resize(100, 30);
    await terminal.type('', 'C-z');
    await terminal.shows(/Stopped/);
    await terminal.type('clear; fg; echo "code=$?"', 'Enter');
    await terminal.shows(/typed "by hand"/);
    // The first clears the line, the second ends it.
    await terminal.type('', 'C-c');
    await terminal.shows(READY);
    await terminal.type('', 'C-c');
    await terminal.shows(/^code=0/m);
    expect(await ask(terminal, 'stty -a', 'after')).toBe(before);
    await stage.nothingLeft();
  });

  test('a kill -9 of opencode leaves a sane terminal and its exit code; closing the terminal ends everything', async (context) => {
    needTmux(context);
    await using stage = await openStage();
    const { terminal } = stage;
    const before = await ask(terminal, 'stty -a', 'before');
    await terminal.type(`clear; ${WRAPPER}; echo "code=$?"`, 'Enter');
    await terminal.shows(READY);
    await stage.registered();
    process.kill(await stage.opencode(), 'SIGKILL');
    const screen = await terminal.shows(/^code=137/m);
    // The alternate screen is gone with its content.
    expect(screen).not.toMatch(READY);
    expect(await ask(terminal, 'stty -a', 'after')).toBe(before);
    await terminal.type('echo typed$((1+1))', 'Enter');
    await terminal.shows(/^typed2$/m);
    await stage.nothingLeft();

    await terminal.type(WRAPPER, 'Enter');
    await terminal.shows(READY);
    await stage.registered();
    await terminal.close();
    await stage.nothingLeft();
  });

  const HANGS_ONCE_IT_MAY_ASK = `#!/bin/sh
case "$*" in *BatchMode=yes*) echo 'Permission denied (publickey).' >&2; exit 255 ;; esac
exec sleep 600
`;

  test('Ctrl-C while it waits for the relay starts opencode without one, and the next Ctrl-C ends it', async (context) => {
    needTmux(context);
    await using folder = tempDir('hanging-ssh');
    const ssh = join(folder.path, 'ssh');
    await writeFile(ssh, HANGS_ONCE_IT_MAY_ASK, { mode: 0o755 });
    await using stage = await openStage({ RELAY_SSH_CMD: `${ssh} relay` });
    const { terminal } = stage;
    await terminal.type(`clear; ${WRAPPER} --headless`, 'Enter');
    await terminal.shows(/connecting to the relay; Ctrl-C continues without it/);
    await terminal.type('', 'C-c');
    await terminal.shows(/answers at http/);
    expect(await terminal.screen()).toContain('no connection to the relay');
    await terminal.type('', 'C-c');
    // The shell sees that an interrupt ended it, and abandons the line as for any program.
    await stage.nothingLeft();
    await terminal.type('echo back$((1+1))', 'Enter');
    await terminal.shows(/^back2$/m);
  });
});
