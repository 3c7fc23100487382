import { homedir, constants } from 'node:os';

import { loadSettings } from '../config/load.ts';
import type { Settings } from '../config/settings.ts';
import { readTextFile } from '../config/file/text-file.ts';
import type { Output } from '../base/program.ts';
import type { CommandOptions } from './status/places.ts';
import { VERSION } from '../base/version.ts';
import { FLAGS, readCommandLine, type Subcommand } from './arguments.ts';

const EXIT_FAILED = 1;
/** What shells give for a process that a signal ended. */
const EXIT_SIGNAL = 128;

/** Reads the command line and does what it says. Ends the process. */
export async function runConnected(process: NodeJS.Process, output: Output): Promise<void> {
  const argv = process.argv.slice(2);
  const separator = argv.indexOf('--');
  const ours = separator === -1 ? argv : argv.slice(0, separator);
  if (ours.includes('--version') || ours.includes('-v')) {
    output.print(`${VERSION}\n`);
    return;
  }
  if (ours.includes('--help') || ours.includes('-h')) {
    const { connectedHelp: helpText } = await import('./help.ts');
    output.print(helpText());
    return;
  }
  const { subcommand, own, forOpencode } = readCommandLine(argv);
  const { settings, warnings, flags } = await loadSettings({
    argv: own,
    env: process.env,
    home: homedir(),
    cwd: process.cwd(),
    readFile: readTextFile,
    program: 'opencode-connected',
    command: { flags: FLAGS[subcommand], positionals: false },
  });
  const tell = (line: string): void => output.tell(`opencode-connected: ${line}\n`);
  for (const warning of warnings) tell(warning);
  const isOn = (flag: string): boolean => flags.get(flag) === 'true';
  if (subcommand !== 'start') {
    process.exitCode = await look(subcommand, settings, { isOn, process, out: output.print });
    return;
  }
  const { start } = await import('./start/start.ts');
  const { code, signal } = await start({
    settings,
    headless: isOn('headless'),
    withPassword: !isOn('no-password'),
    onLan: isOn('lan'),
    forOpencode,
    process,
    tell,
  });
  endAs(process, code, signal);
}

async function look(
  subcommand: Exclude<Subcommand, 'start'>,
  settings: Settings,
  { isOn, process, out }: Pick<CommandOptions, 'out'> & { isOn: (flag: string) => boolean; process: NodeJS.Process },
): Promise<number> {
  const { relayCommand } = await import('./relay/ssh-command.ts');
  const { relaySshCommand, relayRegistryDir } = settings.connected;
  const sshCommand = relaySshCommand === undefined ? undefined : relayCommand(relaySshCommand);
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => controller.abort());
  const common = {
    settings: { ...settings, relayRegistryDir, relaySshCommand: sshCommand },
    out,
    signal: controller.signal,
  };
  switch (subcommand) {
    case 'status':
      return (await import('./status/command.ts')).runStatus({ ...common, json: isOn('json') });
    case 'cleanup':
      return (await import('./cleanup/command.ts')).runCleanup({ ...common, dryRun: isOn('dry-run') });
    case 'sessions':
      return (await import('./sessions/command.ts')).runSessions({ ...common, json: isOn('json') });
  }
}

/** Ends as opencode did, so that whoever started this sees no difference. */
function endAs(process: NodeJS.Process, code: number | null, signal: NodeJS.Signals | null): void {
  if (signal === null) {
    process.exit(code ?? EXIT_FAILED);
  }
  // Nothing listens for it any more, so it does what it does by default.
  process.kill(process.pid, signal);
  setTimeout(() => process.exit(EXIT_SIGNAL + constants.signals[signal]), 1000);
}
