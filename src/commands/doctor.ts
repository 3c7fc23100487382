import { homedir } from 'node:os';

import { systemClock } from '../base/clock.ts';
import { lineLogger } from '../base/log.ts';
import { safeToShow } from '../base/plain-text.ts';
import type { Output } from '../base/program.ts';
import { type ReadTextFile, readTextFile } from '../config/file/text-file.ts';
import type { CommandArguments } from '../config/flags.ts';
import { type LoadedSettings, loadSettings } from '../config/load.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import { DOCTOR_LIMIT_MS, type Examination, examine, examineName } from '../doctor/examine.ts';
import { type StartedRuntime, startRuntime } from './terminal/start-runtime.ts';
import { drawReport } from './terminal/doctor-report.ts';
import { EXIT } from './terminal/exit-codes.ts';
import { paintFor } from './terminal/paint.ts';
import { untilSignal } from './terminal/until-signal.ts';
import { takeNames, widthOfTerminal } from './terminal/shell.ts';

export const DOCTOR_ARGUMENTS: CommandArguments = { flags: { json: 'boolean' }, positionals: true };

/** Prints what works, what does not and what to do. Sets the exit code: 1 if something is broken. */
export async function doctor(argv: readonly string[], process: NodeJS.Process, output: Output): Promise<void> {
  const written = await readSettings(argv, process);
  const { flags, positionals } = written.loaded;
  const [name] = takeNames('doctor', { positionals }, { needed: [], optional: ['NAME'] });
  if (name?.trim() === '') throw new SettingsError('doctor: NAME is empty; leave it out to check everything');
  const isJson = flags.get('json') === 'true';
  const { signal, release } = untilSignal(process);
  if (!isJson && process.stdout.isTTY) output.tell(`Checking everything, for at most ${DOCTOR_LIMIT_MS / 1000} s …\n`);
  const started = start(written, output);
  try {
    const input = examination(written, started, process, signal);
    const report = safeToShow(await (name === undefined ? examine(input) : examineName(name, input)));
    if (isJson) output.print(`${JSON.stringify(report, undefined, 2)}\n`);
    else output.draw(drawReport(report, paintFor(process.stdout), widthOfTerminal(process.stdout)));
    process.exitCode = report.verdict === 'broken' ? EXIT.failed : EXIT.done;
  } catch (error) {
    if (!signal.aborted) throw error;
    process.exitCode = EXIT.failed;
  } finally {
    await started.runtime.close();
    release();
  }
}

interface Written {
  readonly loaded: LoadedSettings;
  /** Settings that were left out, and why. */
  readonly problems: readonly string[];
  readonly configPath: string;
  readonly configFile: string | undefined;
}

/** The settings without invalid ones, since these may be why the user runs the doctor. @throws {SettingsError} invalid arguments */
async function readSettings(argv: readonly string[], process: NodeJS.Process): Promise<Written> {
  let configPath = '';
  let configFile: string | undefined;
  let isFileUsable = true;
  const readFile: ReadTextFile = (path) => {
    configPath = path;
    if (!isFileUsable) return { text: '{}' };
    const file = readTextFile(path);
    configFile = path;
    return file;
  };
  const env = { ...process.env };
  const problems: string[] = [];
  for (;;) {
    try {
      const common = { argv, home: homedir(), cwd: process.cwd(), command: DOCTOR_ARGUMENTS };
      return { loaded: await loadSettings({ ...common, env, readFile }), problems, configPath, configFile };
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error;
      const lines = error.message.split('\n');
      const variables = new Set(lines.map(variableIn).filter((name) => name in env));
      const others = lines.filter((line) => !variables.has(variableIn(line)));
      // Without a variable, a problem is the file's, or an argument's, which begins with a dash.
      if (others.length > 0 && (!isFileUsable || others.some((line) => line.startsWith('-')))) throw error;
      if (others.length > 0) isFileUsable = false;
      for (const name of variables) delete env[name];
      problems.push(...lines);
    }
  }
}

/** The variable that a problem begins with, or an empty string. */
function variableIn(problem: string): string {
  return /^([A-Z_]+): /.exec(problem)?.[1] ?? '';
}

interface Started {
  readonly settings: Settings;
  readonly problems: readonly string[];
  readonly runtime: StartedRuntime;
}

function start({ loaded: { settings }, problems }: Written, { tell }: Output): Started {
  // The report has what the log would.
  const logger = lineLogger(settings.logLevel === 'debug' ? 'debug' : 'error', tell);
  try {
    return { settings, problems, runtime: startRuntime(settings, logger) };
  } catch (error) {
    // An unknown source.
    if (!(error instanceof SettingsError)) throw error;
    const all: Settings = { ...settings, sources: 'all' };
    return { settings: all, problems: [...problems, error.message], runtime: startRuntime(all, logger) };
  }
}

function examination(
  { loaded: { warnings }, configPath, configFile }: Written,
  { settings, problems, runtime }: Started,
  process: NodeJS.Process,
  signal: AbortSignal,
): Examination {
  return {
    settings,
    problems,
    warnings,
    configPath,
    configFile,
    signal,
    fleet: runtime.runtime.fleet,
    clock: systemClock,
    place: { home: homedir(), platform: process.platform, env: process.env },
    execPath: process.execPath,
    script: process.argv[1] ?? '',
    nodeVersion: process.version,
  };
}
