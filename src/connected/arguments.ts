import { quote } from '../config/quote.ts';
import { SettingsError } from '../config/settings.ts';

export const SUBCOMMANDS = ['start', 'status', 'cleanup', 'sessions', 'survey'] as const;
export type Subcommand = (typeof SUBCOMMANDS)[number];

export interface CommandLine {
  readonly subcommand: Subcommand;
  /** Ours: what stands before `--`, without the subcommand. */
  readonly own: readonly string[];
  /** opencode's: what stands after it, untouched. */
  readonly forOpencode: readonly string[];
}

/** The flags of each subcommand beside the settings. */
export const FLAGS: Readonly<Record<Subcommand, Readonly<Record<string, 'boolean'>>>> = {
  start: { headless: 'boolean', 'no-password': 'boolean', lan: 'boolean' },
  status: { json: 'boolean' },
  cleanup: { 'dry-run': 'boolean' },
  sessions: { json: 'boolean' },
  survey: { json: 'boolean', request: 'boolean' },
};

/** Takes `opencode-connected [subcommand] [flags] [-- opencode's own arguments]` apart. Throws a `SettingsError`. */
export function readCommandLine(argv: readonly string[]): CommandLine {
  const separator = argv.indexOf('--');
  const ours = separator === -1 ? argv : argv.slice(0, separator);
  const forOpencode = separator === -1 ? [] : argv.slice(separator + 1);
  const [first = ''] = ours;
  const named = first !== '' && !first.startsWith('-');
  const subcommand = named ? SUBCOMMANDS.find((name) => name === first) : 'start';
  if (subcommand === undefined) {
    throw new SettingsError(
      `unknown subcommand ${quote(first)}: expected none (start opencode) or one of ${SUBCOMMANDS.join(', ')}; arguments for opencode itself go after --`,
    );
  }
  if (subcommand !== 'start' && forOpencode.length > 0) {
    throw new SettingsError(`${subcommand} takes nothing after --; only a start passes arguments on to opencode`);
  }
  const address = forOpencode.find((argument) => /^--(?:port|hostname)(?:=|$)/.test(argument));
  if (address !== undefined) {
    throw new SettingsError(
      `${quote(address)}: opencode-connected chooses and checks a port of 127.0.0.1 by itself; leave it out`,
    );
  }
  return { subcommand, own: named ? ours.slice(1) : ours, forOpencode };
}
