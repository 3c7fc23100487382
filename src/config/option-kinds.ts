import { hasUnsafeCharacters } from './quote.ts';

/** How a setting is written: as text (flag, environment) and as JSON (config file). `undefined` stands for "not valid". */
export interface Kind<T> {
  /** Completes "expected …". */
  readonly expected: string;
  /** On the command line a switch is `--flag` or `--no-flag`. */
  readonly isSwitch?: true;
  fromText(text: string): T | undefined;
  fromJson(value: unknown): T | undefined;
  /** The value as help shows it. */
  show(value: T): string;
}

/** A whole decimal number; JSON numbers in the config file. */
export function wholeNumber(unit: string, min: number, max: number): Kind<number> {
  const check = (value: number): number | undefined =>
    Number.isInteger(value) && value >= min && value <= max ? value : undefined;
  return {
    expected: `a whole number${unit === '' ? '' : ` of ${unit}`} from ${min} to ${max}`,
    fromText: (text) => (/^[0-9]+$/.test(text) ? check(Number(text)) : undefined),
    fromJson: (value) => (typeof value === 'number' ? check(value) : undefined),
    show: String,
  };
}

const BOOLEANS = new Map([
  ...['1', 'true', 'yes', 'on'].map((word) => [word, true] as const),
  ...['0', 'false', 'no', 'off'].map((word) => [word, false] as const),
]);

export function yesOrNo(): Kind<boolean> {
  return {
    expected: '1, true, yes, on, 0, false, no or off (in the config file true or false)',
    isSwitch: true,
    fromText: (text) => BOOLEANS.get(text.toLowerCase()),
    fromJson: (value) => (typeof value === 'boolean' ? value : undefined),
    show: (value) => (value ? 'on' : 'off'),
  };
}

export function oneOf<T extends string>(known: readonly T[]): Kind<T> {
  const fromText = (text: string): T | undefined => known.find((name) => name === text.toLowerCase());
  return {
    expected: `one of ${known.join(', ')}`,
    fromText,
    fromJson: (value) => (typeof value === 'string' ? fromText(value) : undefined),
    show: String,
  };
}

/** Some of the known names, each once, or `all`. JSON: a string as on the command line, or an array of names. */
export function someOf<T extends string>(known: readonly T[]): Kind<'all' | readonly T[]> {
  const choose = (names: readonly string[]): 'all' | readonly T[] | undefined => {
    const wanted = names.map((name) => name.trim().toLowerCase()).filter((name) => name !== '');
    const found = known.filter((name) => wanted.includes(name));
    if (wanted.some((name) => name !== 'all' && !known.some((one) => one === name))) return undefined;
    if (wanted.includes('all')) return 'all';
    return found.length > 0 ? found : undefined;
  };
  const fromText = (text: string): 'all' | readonly T[] | undefined =>
    text.trim() === '' ? 'all' : choose(text.split(','));
  return {
    expected: `all, or a comma list of ${known.join(', ')}`,
    fromText,
    fromJson(value) {
      if (typeof value === 'string') return fromText(value);
      return Array.isArray(value) && value.every((name) => typeof name === 'string') ? choose(value) : undefined;
    },
    show: (value) => (value === 'all' ? value : value.join(',')),
  };
}

// A probe of one machine is one request for each; whoever needs more runs the node service there.
const MAX_PORTS = 16;

/** Distinct ports. JSON: an array of numbers, or a string as on the command line. */
export function ports(): Kind<readonly number[]> {
  const check = (values: readonly number[]): readonly number[] | undefined => {
    const distinct = [...new Set(values)];
    const valid = distinct.every((value) => Number.isInteger(value) && value >= 1 && value <= 65_535);
    return valid && distinct.length <= MAX_PORTS ? distinct : undefined;
  };
  const fromText = (text: string): readonly number[] | undefined => {
    const words = text.split(',').map((word) => word.trim());
    if (words.length === 1 && words[0]?.toLowerCase() === 'none') return [];
    return words.every((word) => /^[0-9]+$/.test(word)) ? check(words.map(Number)) : undefined;
  };
  return {
    expected: `none, or a comma list of at most ${MAX_PORTS} ports from 1 to 65535`,
    fromText,
    fromJson(value) {
      if (typeof value === 'string') return fromText(value);
      return Array.isArray(value) && value.every((port) => typeof port === 'number') ? check(value) : undefined;
    },
    show: (value) => (value.length === 0 ? 'none' : value.join(',')),
  };
}

/** Distinct words that all fit `pattern`. JSON: an array of them, or a string as on the command line. */
export function words(expected: string, pattern: RegExp): Kind<readonly string[]> {
  const check = (values: readonly string[]): readonly string[] | undefined => {
    const distinct = [...new Set(values.map((word) => word.trim()).filter((word) => word !== ''))];
    return distinct.every((word) => pattern.test(word) && !hasUnsafeCharacters(word)) ? distinct : undefined;
  };
  return {
    expected,
    fromText: (text) => check(text.split(',')),
    fromJson(value) {
      if (typeof value === 'string') return check(value.split(','));
      return Array.isArray(value) && value.every((word) => typeof word === 'string') ? check(value) : undefined;
    },
    show: (value) => (value.length === 0 ? 'none' : value.join(',')),
  };
}

// Linux: IFNAMSIZ is 16 with the final NUL. Longer ones are Windows' friendly names.
const INTERFACE_NAME = /^[^\s,/]{1,64}$/;

/** Names of network interfaces; `all` and `none` stand alone. JSON: an array of names, or a string as on the command line. */
export function interfaces(): Kind<'all' | readonly string[]> {
  const list = words('', INTERFACE_NAME);
  const fromText = (text: string): 'all' | readonly string[] | undefined => {
    const word = text.trim().toLowerCase();
    if (word === 'all') return 'all';
    if (word === 'none') return [];
    const names = list.fromText(text);
    return names === undefined || names.length === 0 ? undefined : names;
  };
  return {
    expected: 'all, none, or a comma list of names of network interfaces',
    fromText,
    fromJson: (value) => (typeof value === 'string' ? fromText(value) : list.fromJson(value)),
    show: (value) => (value === 'all' ? value : value.join(',') || 'none'),
  };
}

/** A path as written; the loader resolves it. */
export function path(): Kind<string> {
  // A NUL would be refused by the system with an error that names no setting.
  return text('a path', (value) => !value.includes('\0'));
}

/** Basic authentication ends the user name at the first colon. */
export function username(): Kind<string> {
  return text(
    'a user name without a colon, control or invisible characters',
    (value) => !value.includes(':') && !hasUnsafeCharacters(value),
  );
}

/** A path on another machine: resolved there, so it must not depend on where it is resolved from. */
export function absolutePath(): Kind<string> {
  return text(
    'an absolute path without control characters',
    (value) => value.startsWith('/') && !hasUnsafeCharacters(value),
  );
}

/** A command or the name of a program; never evaluated. */
export function command(expected: string): Kind<string> {
  return text(expected, (value) => value.trim() !== '' && !hasUnsafeCharacters(value));
}

/** As given; whoever uses it says what is wrong with it. */
export function anyText(): Kind<string> {
  return text('text', () => true);
}

/** A setting without a default. */
export function optional<T>(kind: Kind<T>): Kind<T | undefined> {
  return { ...kind, show: (value) => (value === undefined ? 'none' : kind.show(value)) };
}

function text(expected: string, isValid: (value: string) => boolean): Kind<string> {
  const fromText = (value: string): string | undefined => (value !== '' && isValid(value) ? value : undefined);
  return {
    expected,
    fromText,
    fromJson: (value) => (typeof value === 'string' ? fromText(value) : undefined),
    show: String,
  };
}
