import { parseArgs } from 'node:util';
import { didYouMean } from './file/nearest.ts';
import { type Program, ROWS, rowsOf } from './options.ts';
import { quote } from './quote.ts';
import { singleLine } from '../base/plain-text.ts';

/** What a subcommand takes beside the settings. */
export interface CommandArguments {
  /** Long flags, without the dashes; a `boolean` one takes no value, and a `list` may be given again, for more. */
  readonly flags: Readonly<Record<string, 'string' | 'boolean' | 'list'>>;
  readonly positionals: boolean;
}

export interface GivenFlag {
  /** As the person wrote it: `--no-read-only`. */
  readonly written: string;
  readonly text: string;
}

export interface GivenArguments {
  /** By long name; of a flag that was given twice, the last; of a list all, with commas. A switch is `true` or `false`. */
  readonly flags: ReadonlyMap<string, GivenFlag>;
  readonly positionals: readonly string[];
}

const HINT = 'see --help';

/** Reads the arguments after the subcommand. What is wrong with them goes into `problems`, one line each. */
export function readFlags(
  argv: readonly string[],
  program: Program,
  command: CommandArguments,
  problems: string[],
): GivenArguments {
  const takesValue = knownFlags(program, command);
  // Not strict: the errors of parseArgs stop at the first one, and ours are worded like those of the other settings.
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
      // What follows an unknown flag is its value, and may be a secret: `--password hunter2`.
      if (unknownAt !== undefined && token.index === unknownAt + 1) continue;
      if (command.positionals) positionals.push(token.value);
      else problems.push(`unexpected argument ${quote(token.value)}; ${HINT}`);
      continue;
    }
    const value = takesValue.get(token.name);
    if (value === undefined || !token.rawName.startsWith('--')) {
      // A cluster of short flags comes as one token for each letter; it may be a mistyped value, so only the first is named.
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

/** Every flag, and whether it takes a value. */
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

/** `--read-only`, `--no-read-only`, and `--read-only=false` as the environment variable has it. */
function switchOf(token: OptionToken, problems: string[]): (GivenFlag & { name: string }) | undefined {
  const { name, rawName: written, value } = token;
  const negated = ROWS.find(({ flag, isSwitch }) => isSwitch && name === `no-${flag}`)?.flag;
  if (negated === undefined) return { name, written, text: value ?? 'true' };
  if (value === undefined) return { name: negated, written, text: 'false' };
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
