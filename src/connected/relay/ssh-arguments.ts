import { basename } from 'node:path';

import { singleLine } from '../../base/plain-text.ts';
import { SettingsError } from '../../config/settings.ts';

/**
 * The connection does not work without these, whatever the user's ssh configuration or command says. The user's own forwards may fail, as
 * they do if another session has them already.
 */
const NEEDED = {
  SessionType: 'default',
  RemoteCommand: 'none',
  StdinNull: 'no',
  ForkAfterAuthentication: 'no',
  // A local command may read standard input, which carries our protocol.
  PermitLocalCommand: 'no',
  // In a shared connection the tunnel would outlive this process. Without a path none is shared, whatever ControlMaster says.
  ControlPath: 'none',
  // ssh prints the tunnel's port at this level.
  LogLevel: 'INFO',
  ExitOnForwardFailure: 'no',
  ClearAllForwardings: 'no',
};

/** Options in the person's command win, since ssh takes the first of two. A lost connection is noticed after 45 s. */
const DEFAULTS = {
  // SessionType and others came with OpenSSH 8.7. `*`, because this replaces the user's own list.
  IgnoreUnknown: '*',
  ServerAliveInterval: '15',
  ServerAliveCountMax: '3',
  // Covers the network and the key exchange, not the time in which a person types.
  ConnectTimeout: '30',
};

export interface SshArguments {
  readonly command: readonly string[];
  readonly interactive: boolean;
  /** Where the tunnel leads on this machine. Without one, the person's own forwards are not opened either. */
  readonly localPort?: number;
  /** What the relay's login shell runs. */
  readonly remoteCommand: string;
}

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

/** Environment of an ssh that may not ask. Without a terminal, ssh would ask in a window, and gcloud on standard input, which carries our protocol. */
export const ASKS_NOTHING = { SSH_ASKPASS_REQUIRE: 'never', CLOUDSDK_CORE_DISABLE_PROMPTS: '1' };

/** A word of ssh flags, the last of which may take a value: ssh(1). */
const FLAGS = /^-([1246AaCfGgKkMNnqsTtVvXxYy]*)(?:([BbcDEeFIiJLlmOoPpQRSWw])(.*))?$/s;
/** -f, -N, -n and -s contradict the settings above; -q and -y hide the line with the port. */
const UNWANTED_FLAGS = /[fNnqsy]/g;
/** -E hides the line with the port; -S shares the connection. */
const UNWANTED_VALUES = 'ES';

/** Leaves out the person's flags and options that contradict `NEEDED`: a later option does not cancel them. */
function withoutNeeded(command: readonly string[]): readonly string[] {
  const names = command.map((word) => basename(word));
  // gcloud has flags of its own, and passes on what follows "--".
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
  /** Set if the word is not a flag. */
  readonly word?: string;
  readonly flags: string;
  /** The flag that has a value, attached to it or in the next word. */
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

/** @throws {SettingsError} `command` runs ssh without a host, or with a remote command, which must be ours */
export function checkDestination(command: readonly string[]): void {
  if (basename(command[0] ?? '') !== 'ssh') return;
  const [host, ...more] = [...wordsOf(command.slice(1))].flatMap(({ word }) => word ?? []);
  if (host === undefined) throw new SettingsError(`RELAY_SSH_CMD: names no host; write it as in "ssh user@relay"`);
  if (more.length > 0) {
    const shown = JSON.stringify(singleLine(more.join(' '), 100));
    throw new SettingsError(`RELAY_SSH_CMD: must end with the host, since our command follows it; remove ${shown}`);
  }
}

/** Whether `setting`, in the form `Name=value` or `Name value`, is in `NEEDED`. */
function isNeeded(setting: string): boolean {
  const name = /^\s*"?(\w+)/.exec(setting)?.[1]?.toLowerCase();
  return Object.keys(NEEDED).some((needed) => needed.toLowerCase() === name);
}
