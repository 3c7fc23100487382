import { realpathSync, statSync } from 'node:fs';
import { homedir, constants } from 'node:os';
import { isatty } from 'node:tty';

import { loadSettings } from '../config/load.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import { readTextFile } from '../config/file/text-file.ts';
import type { Output } from '../base/program.ts';
import { VERSION } from '../base/version.ts';
import type { CommandOptions } from './status/places.ts';
import { FLAGS, readCommandLine, type Subcommand, withoutProject } from './arguments.ts';

const EXIT_FAILED = 1;
/** A shell's exit code for a process that a signal ended. */
const EXIT_SIGNAL = 128;

export async function runConnected(process: NodeJS.Process, output: Output): Promise<void> {
  const command = readCommandLine(process.argv.slice(2), isDirectory);
  if (command.kind === 'help') {
    const { connectedHelp: helpText } = await import('./help.ts');
    output.print(helpText());
    return;
  }
  if (command.kind === 'version') {
    output.print(`${VERSION}\n`);
    output.tell('this is the version of opencode-connected; opencode-connected -- --version prints that of opencode\n');
    return;
  }
  const { settings, warnings, flags } = await loadSettings({
    argv: command.kind === 'plain' ? [] : command.own,
    env: process.env,
    home: homedir(),
    cwd: process.cwd(),
    readFile: readTextFile,
    program: 'opencode-connected',
    command: { flags: command.kind === 'plain' ? {} : FLAGS[command.kind], positionals: false },
  });
  if (command.kind === 'plain') {
    const [{ findOpencode }, { runPlain }] = await Promise.all([
      import('./start/opencode-program.ts'),
      import('./plain-run.ts'),
    ]);
    const program = await findOpencode(settings.connected.opencodeBin, process.env['PATH']);
    const { code, signal } = await runPlain(program, command.forOpencode, process);
    endAs(process, code, signal);
    return;
  }
  const tell = (line: string): void => output.tell(`opencode-connected: ${line}\n`);
  for (const warning of warnings) tell(warning);
  const isOn = (flag: string): boolean => flags.get(flag) === 'true';
  if (command.kind !== 'start') {
    process.exitCode = await runSubcommand(command.kind, settings, { isOn, process, out: output.print });
    return;
  }
  const headless = isOn('headless');
  // opencode may read its input elsewhere, but cannot draw into a file or a pipe.
  if (!headless && !isatty(STDOUT)) throw new SettingsError(NO_TERMINAL);
  const { project, forOpencode } = command;
  const { start } = await import('./start/start.ts');
  const { code, signal } = await start({
    settings,
    headless,
    withPassword: !isOn('no-password'),
    onLan: isOn('lan'),
    directory: project === undefined ? process.cwd() : realpathSync(project),
    // opencode serve takes no directory argument; it is started in the directory.
    forOpencode: headless ? withoutProject(forOpencode, project) : forOpencode,
    process,
    tell,
  });
  endAs(process, code, signal);
}

const STDOUT = 1;
const NO_TERMINAL =
  'standard output is not a terminal, which opencode needs; to serve without one, run opencode-connected --headless';

function isDirectory(word: string): boolean {
  return statSync(word, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

async function runSubcommand(
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
    case 'survey': {
      const request = isOn('request') ? process.stdin : undefined;
      return (await import('./survey/command.ts')).runSurvey({ ...common, request });
    }
  }
}

/** Ends as opencode did: the caller sees no difference. */
function endAs(process: NodeJS.Process, code: number | null, signal: NodeJS.Signals | null): void {
  if (signal === null) {
    process.exit(code ?? EXIT_FAILED);
  }
  // Nothing listens for the signal any more, so it ends this process.
  process.kill(process.pid, signal);
  setTimeout(() => process.exit(EXIT_SIGNAL + constants.signals[signal]), 1000);
}
