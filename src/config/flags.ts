import { parseArgs } from 'node:util';
import { didYouMean } from './file/nearest.ts';
import { type Program, ROWS, rowsOf } from './options.ts';
import { quote } from './quote.ts';
import { singleLine } from '../base/plain-text.ts';

/** The flags and arguments of a subcommand besides the settings. */
export interface CommandArguments {
  /** Long flags, without the dashes. A `boolean` takes no value; a `list` may be repeated. */
  readonly flags: Readonly<Record<string, 'string' | 'boolean' | 'list'>>;
  readonly positionals: boolean;
}

export interface GivenFlag {
  /** As typed: `--no-read-only`. */
  readonly written: string;
  readonly text: string;
}

export interface GivenArguments {
  /** By long name. The last one counts; values of a list are joined by commas. A switch is `true` or `false`. */
  readonly flags: ReadonlyMap<string, GivenFlag>;
  readonly positionals: readonly string[];
}

const HINT = 'see --help';

/** Reads the arguments after the subcommand. Adds one line to `problems` for each mistake. */
export function readFlags(
  argv: readonly string[],
  program: Program,
  command: CommandArguments,
  problems: string[],
): GivenArguments {
  const takesValue = knownFlags(program, command);
  // Not strict: parseArgs stops at the first error, and words it unlike those of other settings.
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(
      [...takesValue].map(([name, value]) => [name, { type: value ? 'string' : 'boolean' } as const]),
    ),
    strict: false,
    tokens: true,
  });
  const flags = new Map<string, GivenFlag>();
  const positionals: string[] = [];
  let unknownAt: number | undefined;
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue;
    if (token.kind === 'positional') {
      // The value of an unknown flag may be a secret: `--password hunter2`.
      if (unknownAt !== undefined && token.index === unknownAt + 1) continue;
      if (command.positionals) positionals.push(token.value);
      else problems.push(`unexpected argument ${quote(token.value)}; ${HINT}`);
      continue;
    }
    const value = takesValue.get(token.name);
    if (value === undefined || !token.rawName.startsWith('--')) {
      // parseArgs splits `-abc` into three tokens; report it once.
      if (unknownAt !== token.index) problems.push(unknownFlag(token.rawName, [...takesValue.keys()]));
      unknownAt = token.inlineValue === true ? undefined : token.index;
      continue;
    }
    const given = value ? valueOf(token, problems) : switchOf(token, problems);
    if (given === undefined) continue;
    const before = command.flags[given.name] === 'list' ? flags.get(given.name) : undefined;
    flags.set(given.name, before === undefined ? given : { ...given, text: `${before.text},${given.text}` });
  }
  return { flags, positionals };
}

/** By flag, whether it takes a value. */
export function knownFlags(program: Program, command: CommandArguments): Map<string, boolean> {
  const known = new Map(Object.entries(command.flags).map(([name, type]) => [name, type !== 'boolean']));
  for (const { flag, isSwitch } of rowsOf(program)) {
    if (flag === undefined) continue;
    known.set(flag, isSwitch !== true);
    if (isSwitch) known.set(`no-${flag}`, false);
  }
  return known;
}

interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value: string | undefined;
  readonly inlineValue: boolean | undefined;
}

function valueOf(token: OptionToken, problems: string[]): (GivenFlag & { name: string }) | undefined {
  const { name, rawName: written, value } = token;
  if (value === undefined || (token.inlineValue === false && value.startsWith('--'))) {
    problems.push(`${written}: expected a value, as in ${written}=VALUE; ${HINT}`);
    return undefined;
  }
  return { name, written, text: value };
}

/**
 * A switch of a setting: `--read-only`, `--no-read-only`, or `--read-only=VALUE` with a value as in the environment variable. A switch of
 * a command takes no value: its presence counts, so `--interrupt=false` must not pass.
 */
function switchOf(token: OptionToken, problems: string[]): (GivenFlag & { name: string }) | undefined {
  const { name, rawName: written, value } = token;
  const switches = ROWS.flatMap(({ flag, isSwitch }) => (isSwitch && flag !== undefined ? [flag] : []));
  if (switches.includes(name)) return { name, written, text: value ?? 'true' };
  if (value === undefined) {
    const negated = switches.find((flag) => name === `no-${flag}`);
    return negated === undefined ? { name, written, text: 'true' } : { name: negated, written, text: 'false' };
  }
  problems.push(`${written}: expected no value; ${HINT}`);
  return undefined;
}

function unknownFlag(rawName: string, known: readonly string[]): string {
  const [written = ''] = rawName.split('=');
  const meant = didYouMean(
    written,
    known.map((name) => `--${name}`),
  );
  return `${singleLine(written, 80)}: unknown flag, ${HINT}${meant}`;
}
