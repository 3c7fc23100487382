import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import {
  connectedEnvironment,
  type ConnectedOptions,
  CONNECTED_SCRIPT,
  filesIn,
} from '../rig/programs/connected-child.ts';
import { openSandbox, type OpencodeSandbox } from '../rig/opencode/opencode-sandbox.ts';
import { processesIn } from '../rig/processes.ts';
import { openTmux, type TmuxTerminal } from '../rig/programs/tmux.ts';
import { until } from '../rig/wait.ts';
import { atEnd } from './wrapper-stage.ts';

/** The wrapper's command line. */
export const WRAPPER = `${process.execPath} ${CONNECTED_SCRIPT}`;

/** A terminal in which a person starts wrappers. */
export interface TerminalStage {
  readonly terminal: TmuxTerminal;
  readonly sandbox: OpencodeSandbox;
  readonly registry: string;
  /** Resolves with the registration's path once it exists. */
  registered(): Promise<string>;
  /** Resolves once only the shell runs and the registry is empty. */
  nothingLeft(): Promise<void>;
  /** Ends the running opencode with SIGKILL. */
  killOpencode(): Promise<void>;
}

/** Types a command into a shell, and resolves with its output. */
export async function ask(terminal: TmuxTerminal, command: string): Promise<string> {
  await terminal.type(`clear; ${command}; echo "done""="`, 'Enter');
  const screen = await terminal.shows(/^done=/m);
  return screen.slice(0, screen.indexOf('done=')).trim();
}

export async function openTerminalStage(options: ConnectedOptions = {}): Promise<TerminalStage> {
  const sandbox = await openSandbox(options);
  atEnd(() => sandbox.close());
  const registry = options.registry ?? join(sandbox.home, 'registry');
  const env = connectedEnvironment(sandbox, registry, options);
  const terminal = await openTmux(env, sandbox.directory);
  atEnd(() => terminal.close());

  async function commandLines(): Promise<ReadonlyMap<number, string>> {
    const pids = await processesIn(env['TMPDIR'] ?? '');
    const lines = pids.map(
      async (pid) => [pid, await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')] as const,
    );
    return new Map(await Promise.all(lines));
  }
  return {
    terminal,
    sandbox,
    registry,
    async killOpencode() {
      const running = [...(await commandLines())];
      const opencode = running.find(([, line]) => /opencode.*--port/.test(line) && !/\.js/.test(line));
      if (opencode === undefined) throw new Error(`Expected a running opencode, got ${JSON.stringify(running)}`);
      process.kill(opencode[0], 'SIGKILL');
    },
    registered: () =>
      until('a registration', async () => (await filesIn(registry)).find((path) => path.endsWith('.json'))),
    async nothingLeft() {
      await until('nothing to be left', async () => {
        const left = [...(await commandLines()).values()].filter((command) => !command.startsWith('bash'));
        return left.length === 0 && (await filesIn(registry)).length === 0;
      });
    },
  };
}
