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
/** The default of OPENCODE_BIN. */
const DEFAULT_BIN = 'opencode';
const PREVIEW_BIN = 'lildax';

/**
 * Absolute path of this machine's opencode whose terminal speaks `dialect`.
 * @throws {SettingsError} there is none, or it is of another generation; says what to do
 */
export async function findProgram(dialect: Dialect, bin: string, env: Environment): Promise<string> {
  const isPreview = dialect === 'opencode-2-preview';
  const program = await findOpencode(isPreview && bin === DEFAULT_BIN ? PREVIEW_BIN : bin, env['PATH']);
  const { number, version, ...rest } = await askGeneration(program, personsEnvironment(env));
  const isRight = (number === 1) === (dialect === 'opencode-1') && 'isPreview' in rest === isPreview;
  if (isRight) return program;
  const own = number === 1 ? NAMES['opencode-1'] : NAMES['isPreview' in rest ? 'opencode-2-preview' : 'opencode-2'];
  throw new SettingsError(
    `the instance is ${NAMES[dialect]}, but ${shownPath(program)} is ${own}${version === undefined ? '' : ` (${version})`}, whose terminal cannot connect to it; set OPENCODE_BIN to the path of ${NAMES[dialect]}`,
  );
}

export interface TerminalTarget {
  readonly dialect: Dialect;
  readonly url: string;
  /** Undefined if the URL needs none. */
  readonly password: string | undefined;
  /** Undefined for the server's own directory. */
  readonly directory: string | undefined;
  readonly session: string | undefined;
}

export interface Launch {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** The password goes into the environment, because other users can see a command line. */
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
 * `opencode attach` of OpenCode 1 changes into the directory if this machine has one with that path, and then sends the server the
 * resolved path. The server runs the code of any directory that a request names, so the path must not change.
 * @throws {OperationError} it is a symbolic link here
 */
export async function checkDirectory(directory: string): Promise<void> {
  const resolved = await realpath(directory).catch(() => directory);
  if (resolved === directory) return;
  throw new OperationError(
    `The instance works in ${quote(directory)}, which on this machine is a link to ${quote(resolved)}: opencode attach would send it that path, and the instance would run code from there. Nothing was started; use opencode-mcp send and read, or attach on its own machine.`,
  );
}
