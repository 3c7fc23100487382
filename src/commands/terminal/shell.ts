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

/** One subcommand that does what a tool does. */
export interface ShellCommand {
  readonly arguments: CommandArguments;
  /** It changes something on an instance. */
  readonly changes?: true;
  /** @throws {SettingsError} the arguments do not fit */
  run(shell: Shell): Promise<number>;
}

/** What a command works with. */
export interface Shell extends Output {
  readonly flags: ReadonlyMap<string, string>;
  readonly positionals: readonly string[];
  readonly settings: Settings;
  readonly logger: Logger;
  readonly process: NodeJS.Process;
  readonly paint: Paint;
  /** See `widthOfTerminal`. */
  readonly width: number | undefined;
  /** Undefined where there is no terminal to ask in. */
  readonly askLine: AskLine | undefined;
  /** Starts discovery, the first time. */
  runtime(options?: { readonly onChange?: () => void; readonly approver?: (one: Approver) => Approver }): Runtime;
  /** A call of the operations that ends with the command, and asks the person in the terminal where there is one. */
  call(onProgress?: Call['onProgress']): Call;
  /** Aborts when the command is to end. */
  readonly signal: AbortSignal;
  /** From now on nothing is logged: another program has the screen. */
  quiet(): void;
  /** What Ctrl-C does from now on, in the place of ending the command. */
  onInterrupt(act: () => void): void;
  /** Does `work`, and records it as a call of that tool with these arguments. */
  recorded<T>(tool: string, args: object, work: () => Promise<Answer<T>>): Promise<Answer<T>>;
  /** Records what was done in another way than by `recorded`. */
  record(entry: RecordEntry): void;
  /** Prints as JSON. */
  printJson(data: unknown): void;
}

/** A day more than what anybody waits for; longer timers fire at once. */
const LONGEST_CALL_MS = 7 * 86_400_000;

const COMMANDS: Readonly<Record<string, () => Promise<ShellCommand>>> = {
  list: async () => (await import('../list.ts')).LIST,
  ls: async () => (await import('../list.ts')).LIST,
  send: async () => (await import('../send.ts')).SEND,
  read: async () => (await import('../read.ts')).READ,
  wait: async () => (await import('../wait.ts')).WAIT,
  respond: async () => (await import('../respond.ts')).RESPOND,
  abort: async () => (await import('../abort.ts')).ABORT,
  sessions: async () => (await import('../sessions.ts')).SESSIONS,
  attach: async () => (await import('../attach.ts')).ATTACH,
  dashboard: async () => (await import('../dashboard.ts')).DASHBOARD,
  open: async () => (await import('../open.ts')).OPEN,
};

/** Runs the subcommand `name`, and sets the exit code. */
export async function runShellCommand(
  name: string,
  argv: readonly string[],
  process: NodeJS.Process,
  output: Output,
): Promise<void> {
  const command = await COMMANDS[name]?.();
  if (command === undefined) throw new Error(`no command ${name}`);
  const { settings, warnings, flags, positionals } = await ownSettings(argv, process, command.arguments);
  if (command.changes && settings.readOnly) {
    throw new SettingsError(
      `${name}: the setting read-only stands, so nothing was done; --no-read-only does it all the same`,
    );
  }
  // That a machine has no tailscaled is nothing to tell each time.
  let isQuiet = false;
  const logger = lineLogger(settings.logLevel === 'info' ? 'warn' : settings.logLevel, (line) => {
    if (!isQuiet) output.tell(line);
  });
  for (const warning of warnings) logger.log('warn', warning);
  const opened = openShell({ settings, logger, flags, positionals, process, output, quiet: () => (isQuiet = true) });
  // No timer of the operations keeps the process.
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
  // Whoever insists does not wait for what still ends in order.
  process.on('SIGINT', () => (ending.signal.aborted ? process.exit() : onInterrupt()));
  process.once('SIGTERM', end).once('SIGHUP', end);
  // A reader that has left needs no answer.
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

/** In columns; undefined where stdout is no terminal, or one whose size nobody has set. */
export function widthOfTerminal({ isTTY, columns }: NodeJS.WriteStream): number | undefined {
  return isTTY && columns > 0 ? columns : undefined;
}

/** Who is at the shell is the person; what a model may settle they may. */
function personal(approver: Approver): Approver {
  return approver === 'model' ? 'ask' : approver;
}

function timeoutMs(flags: ReadonlyMap<string, string>): number {
  const given = flags.get('timeout');
  return given === undefined ? LONGEST_CALL_MS : countOf('timeout', given, 604_800) * 1_000;
}

/** @throws {SettingsError} it is none, or out of bounds */
export function countOf(flag: string, text: string, max: number): number {
  if (/^\d{1,9}$/.test(text) && Number(text) >= 1 && Number(text) <= max) return Number(text);
  throw new SettingsError(`--${flag}: expected a whole number from 1 to ${max}, got ${quote(text)}`);
}

/** The words after the command. @throws {SettingsError} fewer than `names`, or more */
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
