import { hasUnsafeCharacters } from './quote.ts';

/** The syntax of a setting: text in a flag or variable, text or JSON in the config file. */
export interface Kind<T> {
  /** Completes "expected …". */
  readonly expected: string;
  /** Stands for the value in help texts: `MS` in `--flag MS`. */
  readonly placeholder: string;
  /** Written as `--flag` or `--no-flag`. */
  readonly isSwitch?: true;
  /** Undefined if invalid. */
  parse(written: unknown): T | undefined;
}

export function wholeNumber(unit: string, min: number, max: number): Kind<number> {
  return {
    placeholder: unit === 'milliseconds' ? 'MS' : 'N',
    expected: `a whole number${unit === '' ? '' : ` of ${unit}`} from ${min} to ${max}`,
    parse(written) {
      const value = typeof written === 'string' && /^[0-9]+$/.test(written) ? Number(written) : written;
      return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max ? value : undefined;
    },
  };
}

const BOOLEANS = new Map<unknown, boolean>([
  ...['1', 'true', 'yes', 'on', true].map((word) => [word, true] as const),
  ...['0', 'false', 'no', 'off', false].map((word) => [word, false] as const),
]);

export function yesOrNo(): Kind<boolean> {
  return {
    placeholder: '',
    expected: '1, true, yes, on, 0, false, no or off',
    isSwitch: true,
    parse: (written) => BOOLEANS.get(typeof written === 'string' ? written.toLowerCase() : written),
  };
}

export function oneOf<T extends string>(placeholder: string, known: readonly T[]): Kind<T> {
  return {
    placeholder,
    expected: `one of ${known.join(', ')}`,
    parse: (written) =>
      typeof written === 'string' ? known.find((name) => name === written.toLowerCase()) : undefined,
  };
}

/** The distinct items of a comma list, or of an array of strings and numbers; undefined for anything else. */
function partsOf(written: unknown): readonly string[] | undefined {
  const parts: unknown = typeof written === 'string' ? written.split(',') : written;
  if (!Array.isArray(parts) || !parts.every((part) => typeof part === 'string' || typeof part === 'number'))
    return undefined;
  return [...new Set(parts.map((part) => String(part).trim()).filter((part) => part !== ''))];
}

/** A subset of the known names, or `all`. */
export function someOf<T extends string>(known: readonly T[]): Kind<'all' | readonly T[]> {
  return {
    placeholder: 'LIST',
    expected: `all, or a comma list of ${known.join(', ')}`,
    parse(written) {
      if (typeof written === 'string' && written.trim() === '') return 'all';
      const wanted = partsOf(written)?.map((name) => name.toLowerCase()) ?? [];
      if (wanted.some((name) => name !== 'all' && !known.some((one) => one === name))) return undefined;
      if (wanted.includes('all')) return 'all';
      return wanted.length > 0 ? known.filter((name) => wanted.includes(name)) : undefined;
    },
  };
}

// Each port costs one request per machine; a machine with more needs the node service.
const MAX_PORTS = 16;

export function port(): Kind<number> {
  return { ...wholeNumber('', 1, 65_535), placeholder: 'PORT' };
}

export function ports(): Kind<readonly number[]> {
  return {
    placeholder: 'LIST',
    expected: `none, or a comma list of at most ${MAX_PORTS} ports from 1 to 65535`,
    parse(written) {
      if (typeof written === 'string' && written.trim().toLowerCase() === 'none') return [];
      const parts = partsOf(written);
      if (parts === undefined || parts.length > MAX_PORTS || written === '') return undefined;
      const found = parts.flatMap((part) => port().parse(part) ?? []);
      return found.length === parts.length ? found : undefined;
    },
  };
}

/** Distinct words that match `pattern`. */
export function words(expected: string, pattern: RegExp): Kind<readonly string[]> {
  return {
    placeholder: 'LIST',
    expected,
    parse: (written) => {
      const parts = partsOf(written);
      return parts?.every((word) => pattern.test(word) && !hasUnsafeCharacters(word)) === true ? parts : undefined;
    },
  };
}

// IFNAMSIZ is 16 on Linux; the friendly names of Windows are longer.
const INTERFACE_NAME = /^[^\s,/]{1,64}$/;

/** Names of network interfaces; `all` and `none` stand alone. */
export function interfaces(): Kind<'all' | readonly string[]> {
  const names = words('', INTERFACE_NAME);
  return {
    placeholder: 'LIST',
    expected: 'all, none, or a comma list of names of network interfaces',
    parse(written) {
      const word = typeof written === 'string' ? written.trim().toLowerCase() : undefined;
      if (word === 'all') return word;
      return word === 'none' ? [] : word === '' ? undefined : names.parse(written);
    },
  };
}

function text(placeholder: string, expected: string, isValid: (value: string) => boolean): Kind<string> {
  return {
    placeholder,
    expected,
    parse: (written) => (typeof written === 'string' && written !== '' && isValid(written) ? written : undefined),
  };
}

/** A path as written; the loader resolves it. */
export function path(): Kind<string> {
  // The system's own error for a NUL would not name the setting.
  return text('PATH', 'a path', (value) => !value.includes('\0'));
}

/** Basic authentication ends the user name at the first colon. */
export function username(): Kind<string> {
  return text(
    'NAME',
    'a user name without a colon, control or invisible characters',
    (value) => !value.includes(':') && !hasUnsafeCharacters(value),
  );
}

/** A path on another machine, where there is no base for a relative one. */
export function absolutePath(): Kind<string> {
  return text(
    'PATH',
    'an absolute path without control characters',
    (value) => value.startsWith('/') && !hasUnsafeCharacters(value),
  );
}

/** A command or the name of a program; not evaluated by a shell. */
export function command(placeholder: string, expected: string): Kind<string> {
  return text(placeholder, expected, (value) => value.trim() !== '' && !hasUnsafeCharacters(value));
}

/** Any text but the empty one; the reader of the setting validates it. */
export function anyText(): Kind<string> {
  return text('NAME', 'text', () => true);
}
