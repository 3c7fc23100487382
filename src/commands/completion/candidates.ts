import type { CommandUsage } from '../terminal/help.ts';
import { SHELLS } from './scripts.ts';

export interface Completing {
  /** Words after the program, before the one to be completed. */
  readonly words: readonly string[];
  /** The beginning of that word. */
  readonly current: string;
  readonly commands: ReadonlyMap<string, CommandUsage>;
  readonly topics: readonly string[];
  readonly names: () => Promise<readonly string[]>;
}

/** All candidates for the word; the caller or the shell filters by `current`. */
export async function candidates({ words, current, commands, topics, names }: Completing): Promise<readonly string[]> {
  const [command, ...rest] = words;
  if (command === undefined) return current.startsWith('-') ? ['--help', '--version'] : [...commands.keys()];
  const found = commands.get(command);
  if (found === undefined || rest.includes('--')) return [];
  const options = new Map(found.options.flatMap(readOptions));
  const value = options.get(rest.at(-1) ?? '');
  if (value !== undefined) return /^[a-z|]+$/.test(value) ? value.split('|') : [];
  if (current.startsWith('-')) return [...options.keys(), '--help'];
  const [, ...places] = found.usage.split(' ');
  const given = rest.filter((word, index) => !word.startsWith('-') && options.get(rest[index - 1] ?? '') === undefined);
  const last = places.at(-1);
  const place = places[given.length] ?? (last?.includes('…') === true ? last : '');
  if (/NAME|PART/.test(place)) return (await names()).filter((name) => !given.includes(name));
  if (place.includes('SHELL')) return SHELLS;
  return place.includes('COMMAND') ? topics : [];
}

/** Each option with the word for its value, if it takes one. */
function readOptions(text: string): readonly (readonly [string, string | undefined])[] {
  return [...text.matchAll(/(--[a-z-]+)(?: ([^\s,[\]]+))?/g)].map(([, flag = '', value]) => [flag, value] as const);
}
