import { didYouMean } from '../config/file/nearest.ts';
import { knownFlags } from '../config/flags.ts';
import { quote } from '../config/quote.ts';
import { SettingsError } from '../config/settings.ts';
import { COMMANDS, PLAIN_OPTIONS, VALUE_OPTIONS } from './opencode-words.ts';

export const SUBCOMMANDS = ['start', 'status', 'cleanup', 'sessions', 'survey'] as const;
export type Subcommand = (typeof SUBCOMMANDS)[number];

export type CommandLine =
  | { readonly kind: Exclude<Subcommand, 'start'>; readonly own: readonly string[] }
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  /** opencode does something other than open its terminal. */
  | { readonly kind: 'plain'; readonly forOpencode: readonly string[] }
  | {
      readonly kind: 'start';
      readonly own: readonly string[];
      readonly forOpencode: readonly string[];
      /** The argument among them that names the directory. */
      readonly project: string | undefined;
    };

export const FLAGS: Readonly<Record<Subcommand, Readonly<Record<string, 'boolean'>>>> = {
  start: { headless: 'boolean', 'no-password': 'boolean', lan: 'boolean' },
  status: { json: 'boolean' },
  cleanup: { 'dry-run': 'boolean' },
  sessions: { json: 'boolean' },
  survey: { json: 'boolean', request: 'boolean' },
};

/** Our options of a start, and whether they take a value. */
const OWN_OPTIONS = new Map<string, boolean>(
  [...knownFlags('opencode-connected', { flags: FLAGS.start, positionals: false })].map(([name, takesValue]) => [
    `--${name}`,
    takesValue,
  ]),
);
/** A shorter word resembles opencode's own options just as much. */
const MIN_TYPO_CHARS = '--config'.length;

/**
 * Parses the command line: a subcommand of ours, or a command line of `opencode` that may contain our options, but not after `--`.
 *
 * @param isDirectory whether a word names a directory
 * @throws {SettingsError}
 */
export function readCommandLine(argv: readonly string[], isDirectory: (word: string) => boolean): CommandLine {
  const [first, ...rest] = argv;
  const subcommand = SUBCOMMANDS.find((name) => name === first);
  if (subcommand !== undefined && subcommand !== 'start') return readSubcommand(subcommand, rest);
  const words = subcommand === 'start' ? rest : argv;
  const { own, forOpencode, project, plain } = split(words);
  if (plain === undefined && (project === undefined || isDirectory(project))) {
    refuseAddress(forOpencode);
    return { kind: 'start', own, forOpencode, project };
  }
  if (plain?.isOurs === true && ['--help', '-h'].includes(plain.word)) return { kind: 'help' };
  if (plain?.isOurs === true && ['--version', '-v'].includes(plain.word)) return { kind: 'version' };
  if (plain === undefined && words[0] === project) refuseTypo(project ?? '');
  const [flag] = own;
  if (flag !== undefined)
    throw new SettingsError(
      plain === undefined
        ? `${quote(project ?? '')} is not a directory; ${quote(flag)} is for a start of opencode in a directory`
        : `${quote(flag)} is for a start of opencode in a project; ${quote(plain.word)} runs without opencode-connected, so leave ${quote(flag)} out`,
    );
  return { kind: 'plain', forOpencode };
}

/** Removes the directory, but not an equal word that is the value of an option. */
export function withoutProject(forOpencode: readonly string[], project: string | undefined): readonly string[] {
  const index = forOpencode.findIndex((word, at) => word === project && !VALUE_OPTIONS.has(forOpencode[at - 1] ?? ''));
  return index === -1 ? forOpencode : forOpencode.toSpliced(index, 1);
}

function readSubcommand(kind: Exclude<Subcommand, 'start'>, own: readonly string[]): CommandLine {
  if (own.includes('--'))
    throw new SettingsError(`${kind} takes nothing after --; only a start passes arguments on to opencode`);
  if (own.includes('--help') || own.includes('-h')) return { kind: 'help' };
  return { kind, own };
}

interface Split {
  readonly own: string[];
  readonly forOpencode: string[];
  project: string | undefined;
  /** The word because of which this is not a start, and whether it comes before `--`. Everything after it is opencode's. */
  plain: { readonly word: string; readonly isOurs: boolean } | undefined;
}

function split(words: readonly string[]): Split {
  const read: Split = { own: [], forOpencode: [], project: undefined, plain: undefined };
  const rest = [...words];
  let isOurs = true;
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const [name = ''] = word.split('=', 1);
    const takeValue = (): string[] => (name === word ? rest.splice(0, 1) : []);
    if (isOurs && word === '--') {
      isOurs = false;
      continue;
    }
    const takesValue = isOurs ? OWN_OPTIONS.get(name) : undefined;
    if (takesValue !== undefined) {
      read.own.push(word, ...(takesValue ? takeValue() : []));
      continue;
    }
    if (isOurs) refuseOwnTypo(name);
    read.forOpencode.push(word);
    const isPlain = PLAIN_OPTIONS.has(name) || (read.project === undefined && COMMANDS.has(word));
    if (isPlain) read.plain = { word, isOurs };
    // A second `--` is opencode's own, and no options follow it.
    if (isPlain || word === '--') {
      read.forOpencode.push(...rest);
      return read;
    }
    if (VALUE_OPTIONS.has(name)) read.forOpencode.push(...takeValue());
    else if (!word.startsWith('-')) read.project ??= word;
  }
  return read;
}

/** Refuses a misspelled option of ours. The known options of opencode are accepted. */
function refuseOwnTypo(name: string): void {
  if (!name.startsWith('--') || name.length < MIN_TYPO_CHARS) return;
  if (VALUE_OPTIONS.has(name) || PLAIN_OPTIONS.has(name)) return;
  const meant = didYouMean(name, [...OWN_OPTIONS.keys()]);
  if (meant !== '')
    throw new SettingsError(`${quote(name)}: unknown option${meant} An option of opencode of that name goes after --`);
}

function refuseTypo(word: string): void {
  const meant = didYouMean(word, SUBCOMMANDS);
  if (meant !== '')
    throw new SettingsError(
      `${quote(word)}: neither a directory nor a subcommand of opencode-connected${meant} Arguments for opencode go after --`,
    );
}

function refuseAddress(forOpencode: readonly string[]): void {
  const address = forOpencode.find((argument) => /^--(?:port|hostname)(?:=|$)/.test(argument));
  if (address !== undefined)
    throw new SettingsError(`${quote(address)}: opencode-connected chooses a port of 127.0.0.1 itself; leave it out`);
}
