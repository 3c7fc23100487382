import { systemClock } from '../../base/clock.ts';
import { lineLogger, type Logger } from '../../base/log.ts';
import { type Output, ReportedError } from '../../base/program.ts';
import { safeToShow } from '../../base/plain-text.ts';
import type { CommandArguments } from '../../config/flags.ts';
import { ownSettings } from '../../config/own-settings.ts';
import { quote } from '../../config/quote.ts';
import { type Approver, type Settings, SettingsError } from '../../config/settings.ts';
import type { Answer } from '../../operations/answer.ts';
import { outcomeOf } from '../../mcp/tools/recorded-call.ts';
import { toolError } from '../../mcp/tools/tool-error.ts';
import { CallRecord, type RecordEntry } from '../../operations/call-record.ts';
import type { Call, Runtime } from '../../operations/runtime.ts';
import { VERSION } from '../../base/version.ts';
import { rememberNames } from '../completion/known-names.ts';
import { type StartedRuntime, startRuntime } from './start-runtime.ts';
import { formAsker } from './ask-form.ts';
import { type AskLine, lineAsker } from './ask-line.ts';
import { exitOfError } from './exit-codes.ts';
import { type Paint, paintFor } from './paint.ts';
import { SHELL_WORDS } from './shell-words.ts';

/** A command that works on instances. */
export interface ShellCommand {
  readonly arguments: CommandArguments;
  /** The command changes something on an instance. */
  readonly changes?: true;
  /** @throws {SettingsError} the arguments do not fit */
  run(shell: Shell): Promise<number>;
}

export interface Shell extends Output {
  readonly flags: ReadonlyMap<string, string>;
  readonly positionals: readonly string[];
  readonly settings: Settings;
  readonly logger: Logger;
  readonly process: NodeJS.Process;
  readonly paint: Paint;
  /** Width of the terminal in columns; undefined without a terminal. */
  readonly width: number | undefined;
  /** Undefined without a terminal to ask in. */
  readonly askLine: AskLine | undefined;
  /** Starts discovery on first use. */
  runtime(options?: { readonly onChange?: () => void; readonly approver?: (one: Approver) => Approver }): Runtime;
  /** A call that ends with the command, and asks the person in the terminal if there is one. */
  call(onProgress?: Call['onProgress']): Call;
  /** Aborts when the command must end. */
  readonly signal: AbortSignal;
  /** Stops logging: another program has the screen. */
  quiet(): void;
  /** Replaces what Ctrl-C does, which is to end the command. */
  onInterrupt(act: () => void): void;
  /** Runs `work` and records it as a call of that tool with these arguments. */
  recorded<T>(tool: string, args: object, work: () => Promise<Answer<T>>): Promise<Answer<T>>;
  record(entry: RecordEntry): void;
  printJson(data: unknown): void;
}

/** Well below the longest timer that Node has: longer ones fire at once. */
const LONGEST_CALL_MS = 7 * 86_400_000;

/** Runs the command and sets the exit code. */
export async function runShellCommand(
  { name, command, argv }: { readonly name: string; readonly command: ShellCommand; readonly argv: readonly string[] },
  process: NodeJS.Process,
  output: Output,
): Promise<void> {
  const { settings, warnings, flags, positionals } = await ownSettings(argv, process, command.arguments);
  if (command.changes && settings.readOnly) {
    throw new SettingsError(
      `${name}: the setting read-only forbids this, so nothing was done; --no-read-only overrides it`,
    );
  }
  // At level info every command would report that the machine has no tailscaled.
  let isQuiet = false;
  const logger = lineLogger(settings.logLevel === 'info' ? 'warn' : settings.logLevel, (line) => {
    if (!isQuiet) output.tell(line);
  });
  for (const warning of warnings) logger.log('warn', warning);
  const opened = openShell({ settings, logger, flags, positionals, process, output, quiet: () => (isQuiet = true) });
  // The operations' timers do not keep the process running.
  const alive = setInterval(() => {}, LONGEST_CALL_MS);
  try {
    process.exitCode = await command.run(opened.shell);
  } catch (error) {
    if (error instanceof ReportedError) throw error;
    output.tell(`opencode-mcp ${name}: ${toolError(name, error, logger, SHELL_WORDS)}\n`);
    process.exitCode = exitOfError(error);
  } finally {
    await opened.close();
    clearInterval(alive);
  }
}

interface Opened {
  readonly shell: Shell;
  readonly close: () => Promise<void>;
}

interface Opening extends Pick<Shell, 'settings' | 'logger' | 'flags' | 'positionals' | 'process' | 'quiet'> {
  readonly output: Output;
}

function openShell({ output, ...given }: Opening): Opened {
  const { settings, logger, process } = given;
  const ending = new AbortController();
  const end = (): void => ending.abort();
  let onInterrupt = end;
  // A second Ctrl-C ends the process without waiting for an orderly end.
  process.on('SIGINT', () => (ending.signal.aborted ? process.exit() : onInterrupt()));
  process.once('SIGTERM', end).once('SIGHUP', end);
  // The reader of the output has left.
  process.stdout.once('error', end);
  const record = new CallRecord(settings.stateDir, systemClock, logger);
  const askLine = lineAsker(process);
  let started: StartedRuntime | undefined;
  const shell: Shell = {
    ...given,
    ...output,
    askLine,
    signal: ending.signal,
    paint: paintFor(process.stdout),
    width: widthOfTerminal(process.stdout),
    runtime: ({ onChange, approver = personal } = {}) => {
      const { approve, approvalRules } = settings;
      const rules = approvalRules.map((rule) => ({ ...rule, approve: approver(rule.approve) }));
      started ??= startRuntime({ ...settings, approve: approver(approve), approvalRules: rules }, logger, {
        onChange,
        words: SHELL_WORDS,
      });
      return started.runtime;
    },
    call: (onProgress = () => {}) => ({
      signal: ending.signal,
      deadlineMs: systemClock.monotonic() + timeoutMs(given.flags),
      onProgress,
      ...(askLine !== undefined && !settings.readOnly && { askPerson: formAsker(askLine, output.tell) }),
    }),
    onInterrupt: (act) => {
      onInterrupt = act;
    },
    recorded: async (tool, args, work) => {
      let data: unknown;
      try {
        const answer = await work();
        data = answer.data;
        return safeToShow(answer);
      } finally {
        const outcome = outcomeOf(args, data, new AbortController().signal);
        if (outcome !== undefined) record.add({ client: { name: 'shell', version: VERSION }, tool, ...outcome });
      }
    },
    record: (entry) => record.add(entry),
    printJson: (data) => output.print(`${JSON.stringify(safeToShow(data), undefined, 2)}\n`),
  };
  return {
    shell,
    close: async () => {
      await Promise.all([
        started && rememberNames(settings.stateDir, started.runtime.fleet.snapshot()),
        started?.close(),
        record.close(),
      ]);
    },
  };
}

/** The terminal's width in columns; undefined if stdout is not a terminal, or its size is not set. */
export function widthOfTerminal({ isTTY, columns }: NodeJS.WriteStream): number | undefined {
  return isTTY && columns > 0 ? columns : undefined;
}

/** In a shell the caller is the person, so requests that a model may settle elsewhere are asked. */
function personal(approver: Approver): Approver {
  return approver === 'model' ? 'ask' : approver;
}

function timeoutMs(flags: ReadonlyMap<string, string>): number {
  const given = flags.get('timeout');
  return given === undefined ? LONGEST_CALL_MS : countOf('timeout', given, 604_800) * 1_000;
}

/** @throws {SettingsError} not a number, or out of bounds */
export function countOf(flag: string, text: string, max: number): number {
  if (/^\d{1,9}$/.test(text) && Number(text) >= 1 && Number(text) <= max) return Number(text);
  throw new SettingsError(`--${flag}: expected a whole number from 1 to ${max}, got ${quote(text)}`);
}

/** The words after the command. @throws {SettingsError} there are too few or too many */
export function takeNames(
  command: string,
  { positionals }: Pick<Shell, 'positionals'>,
  names: { readonly needed: readonly string[]; readonly optional?: readonly string[] },
): readonly string[] {
  const { needed, optional = [] } = names;
  const usage = ['opencode-mcp', command, ...needed, ...optional.map((one) => `[${one}]`)].join(' ');
  const missing = needed[positionals.length];
  if (missing !== undefined) throw new SettingsError(`${command}: ${missing} is missing: ${usage}`);
  const extra = positionals[needed.length + optional.length];
  if (extra !== undefined) throw new SettingsError(`${command}: unexpected argument ${quote(extra)}: ${usage}`);
  return positionals;
}
