import { realpath } from 'node:fs/promises';
import { quote, shownPath } from '../config/quote.ts';
import { SettingsError } from '../config/settings.ts';
import { childEnvironment, personsEnvironment } from '../connected/start/child-environment.ts';
import { findOpencode } from '../connected/start/opencode-program.ts';
import { askGeneration } from '../connected/service/generation.ts';
import type { Dialect } from '../model/instance.ts';
import { OperationError } from '../operations/answer.ts';

type Environment = Readonly<Record<string, string | undefined>>;

const NAMES: Readonly<Record<Dialect, string>> = {
  'opencode-1': 'OpenCode 1',
  'opencode-2': 'OpenCode 2',
  'opencode-2-preview': 'the preview of OpenCode 2',
};
/** What OPENCODE_BIN is where nobody set it. */
const DEFAULT_BIN = 'opencode';
const PREVIEW_BIN = 'lildax';

/**
 * Absolute path of this machine's opencode whose terminal speaks `dialect`.
 * @throws {SettingsError} there is none, or it is of another generation: says what to do
 */
export async function findProgram(dialect: Dialect, bin: string, env: Environment): Promise<string> {
  const isPreview = dialect === 'opencode-2-preview';
  const program = await findOpencode(isPreview && bin === DEFAULT_BIN ? PREVIEW_BIN : bin, env['PATH']);
  const { number, version, ...rest } = await askGeneration(program, personsEnvironment(env));
  const isRight = (number === 1) === (dialect === 'opencode-1') && 'isPreview' in rest === isPreview;
  if (isRight) return program;
  const own = number === 1 ? NAMES['opencode-1'] : NAMES['isPreview' in rest ? 'opencode-2-preview' : 'opencode-2'];
  throw new SettingsError(
    `the instance is ${NAMES[dialect]}, and ${shownPath(program)} is ${own}${version === undefined ? '' : ` (${version})`}, whose terminal cannot speak to it; set OPENCODE_BIN to the path of ${NAMES[dialect]}`,
  );
}

/** What the terminal is to show. */
export interface TerminalTarget {
  readonly dialect: Dialect;
  readonly url: string;
  /** Undefined: the URL needs none. */
  readonly password: string | undefined;
  /** Undefined: the server's own, which nobody need name. */
  readonly directory: string | undefined;
  readonly session: string | undefined;
}

export interface Launch {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** The password stands in the environment: everybody sees a command line. */
export function launchFor({ dialect, url, password, directory, session }: TerminalTarget, env: Environment): Launch {
  const inSession = session === undefined ? [] : ['--session', session];
  if (dialect === 'opencode-1') {
    const inDirectory = directory === undefined ? [] : ['--dir', directory];
    return { args: ['attach', url, ...inDirectory, ...inSession], env: childEnvironment(env, password) };
  }
  const { OPENCODE_PASSWORD: _, ...kept } = childEnvironment(env, undefined);
  return {
    args: [...(directory === undefined ? [] : [directory]), '--server', url, ...inSession],
    env: { ...kept, ...(password !== undefined && { OPENCODE_PASSWORD: password }) },
  };
}

/**
 * OpenCode 1 changes into `--dir` where this machine has a directory of that name, and names to the server where it arrived.
 * Naming a directory runs what lies there, so it must be the instance's own.
 * @throws {OperationError} it would be another
 */
export async function checkDirectory(directory: string): Promise<void> {
  const arrived = await realpath(directory).catch(() => directory);
  if (arrived === directory) return;
  throw new OperationError(
    `The instance works in ${quote(directory)}, which on this machine leads to ${quote(arrived)}: opencode attach would name that to it, and the instance would run what lies there. Nothing was started; use opencode-mcp send and read, or attach on its own machine.`,
  );
}
