import { basename } from 'node:path';

import { singleLine } from '../../base/plain-text.ts';
import { SettingsError } from '../../config/settings.ts';

/**
 * Without these there is no session to talk through, or no end of it: what the person's configuration or command says instead is
 * meant for their own sessions. Their forwards may fail, as they do wherever another session has them already.
 */
const NEEDED = {
  SessionType: 'default',
  RemoteCommand: 'none',
  StdinNull: 'no',
  ForkAfterAuthentication: 'no',
  // It may wait for its input, which is ours.
  PermitLocalCommand: 'no',
  // A shared connection would make a tunnel that outlives this process. Without a path there is none, whatever ControlMaster says.
  ControlPath: 'none',
  // The line with the port of the tunnel is an information.
  LogLevel: 'INFO',
  ExitOnForwardFailure: 'no',
  ClearAllForwardings: 'no',
};

/** Those in the person's command win: ssh takes the first of two equal options. Lost connections show after 45 s. */
const DEFAULTS = {
  // SessionType and its like came with OpenSSH 8.7. All unknown ones, since this replaces the list in the person's configuration.
  IgnoreUnknown: '*',
  ServerAliveInterval: '15',
  ServerAliveCountMax: '3',
  // For the network and the key exchange, not for what a person types.
  ConnectTimeout: '30',
};

export interface SshArguments {
  /** The person's command in words. */
  readonly command: readonly string[];
  /** Whether ssh may ask at the terminal. */
  readonly interactive: boolean;
  /** Of this machine: where a tunnel leads. Without one, the person's own forwards are not opened either. */
  readonly localPort?: number;
  /** What the relay's login shell runs. */
  readonly remoteCommand: string;
}

/** Program and arguments of one ssh connection to the relay. */
export function sshArguments({ command, interactive, localPort, remoteCommand }: SshArguments): readonly string[] {
  const settings = {
    ...DEFAULTS,
    ...NEEDED,
    ...(localPort === undefined && { ClearAllForwardings: 'yes' }),
    ...(!interactive && { BatchMode: 'yes' }),
  };
  return [
    ...withoutNeeded(command),
    '-T',
    ...Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
    ...(localPort === undefined ? [] : ['-R', `0:127.0.0.1:${localPort}`]),
    remoteCommand,
  ];
}

/** The environment of an ssh that may not ask: it would, in a window, where it has no terminal; gcloud would on standard input, which is ours. */
export const ASKS_NOTHING = { SSH_ASKPASS_REQUIRE: 'never', CLOUDSDK_CORE_DISABLE_PROMPTS: '1' };

/** A word of ssh's flags, of which the last may take a value: ssh(1). */
const FLAGS = /^-([1246AaCfGgKkMNnqsTtVvXxYy]*)(?:([BbcDEeFIiJLlmOoPpQRSWw])(.*))?$/s;
/** -f, -N, -n and -s are settings above, -q and -y hide the port's line. */
const UNWANTED_FLAGS = /[fNnqsy]/g;
/** -E hides the port's line, -S shares the connection. */
const UNWANTED_VALUES = 'ES';

/** A flag cannot be taken back by a later option, so what of the person's stands against `NEEDED` is left out. */
function withoutNeeded(command: readonly string[]): readonly string[] {
  const names = command.map((word) => basename(word));
  // gcloud has flags of its own, and passes on what stands behind "--".
  const before = names.includes('gcloud') ? names.indexOf('--') : names.indexOf('ssh');
  if (before === -1) return command;
  const kept = command.slice(0, before + 1);
  for (const { word, flags, letter, attached, value } of wordsOf(command.slice(before + 1))) {
    if (word !== undefined) {
      kept.push(word);
      continue;
    }
    const wanted = flags.replace(UNWANTED_FLAGS, '');
    const isKept = !UNWANTED_VALUES.includes(letter) && !(letter === 'o' && isNeeded(attached || (value[0] ?? '')));
    const last = isKept ? letter + attached : '';
    if (wanted + last !== '') kept.push(`-${wanted}${last}`);
    if (isKept) kept.push(...value);
  }
  return kept;
}

interface Word {
  /** One that is no flag. */
  readonly word?: string;
  readonly flags: string;
  /** The flag with a value, which is attached to it or the word behind. */
  readonly letter: string;
  readonly attached: string;
  readonly value: readonly string[];
}

function* wordsOf(words: readonly string[]): Iterable<Word> {
  const rest = words.filter((word) => word !== '--');
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const [, flags = '', letter = '', attached = ''] = FLAGS.exec(word) ?? [];
    const value = letter !== '' && attached === '' ? rest.splice(0, 1) : [];
    yield { ...(flags === '' && letter === '' && { word }), flags, letter, attached, value };
  }
}

/** @throws {SettingsError} `command` is ssh's own, and names no host, or names a command for it: our options and ours come behind */
export function checkDestination(command: readonly string[], setting: string): void {
  if (basename(command[0] ?? '') !== 'ssh') return;
  const [host, ...more] = [...wordsOf(command.slice(1))].flatMap(({ word }) => word ?? []);
  if (host === undefined) throw new SettingsError(`${setting}: names no host; write it as in "ssh user@relay"`);
  if (more.length > 0) {
    const shown = JSON.stringify(singleLine(more.join(' '), 100));
    throw new SettingsError(`${setting}: ends with the host, since a command of ours comes behind it; remove ${shown}`);
  }
}

/** Whether `setting`, as `Name=value` or `Name value`, is one of ours. */
function isNeeded(setting: string): boolean {
  const name = /^\s*"?(\w+)/.exec(setting)?.[1]?.toLowerCase();
  return Object.keys(NEEDED).some((needed) => needed.toLowerCase() === name);
}
