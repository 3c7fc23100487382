import { text as readAll } from 'node:stream/consumers';

import { SettingsError } from '../config/settings.ts';
import { send } from '../operations/send/send.ts';
import { followTurn } from './terminal/follow.ts';
import type { Shell, ShellCommand } from './terminal/shell.ts';

const USAGE = 'opencode-mcp send NAME MESSAGE…';

export const SEND: ShellCommand = {
  arguments: {
    flags: {
      session: 'string',
      queue: 'boolean',
      interrupt: 'boolean',
      agent: 'string',
      model: 'string',
      'request-id': 'string',
      timeout: 'string',
      'no-wait': 'boolean',
      json: 'boolean',
    },
    positionals: true,
  },
  changes: true,
  run: async (shell) => {
    const { flags, positionals } = shell;
    const [instance, ...words] = positionals;
    if (instance === undefined) throw new SettingsError(`send: NAME and MESSAGE are missing: ${USAGE}`);
    if (flags.has('queue') && flags.has('interrupt'))
      throw new SettingsError('send: expected --queue or --interrupt, got both');
    const message = await messageOf(words, shell);
    const input = {
      instance,
      message,
      session_id: flags.get('session'),
      when_busy: flags.has('queue') ? 'queue' : flags.has('interrupt') ? 'interrupt' : 'fail',
      agent: flags.get('agent'),
      model: flags.get('model'),
      request_id: flags.get('request-id'),
      async: flags.has('no-wait'),
    } as const;
    return await followTurn(shell, 'send', (call) =>
      shell.recorded('send', input, () => send(shell.runtime(), input, call)),
    );
  },
};

/** From the arguments, or from stdin if they are `-` or missing. */
async function messageOf(words: readonly string[], { process: { stdin } }: Shell): Promise<string> {
  const isRead = words.length === 0 || (words.length === 1 && words[0] === '-');
  if (!isRead) return words.join(' ');
  if (words.length === 0 && stdin.isTTY) throw new SettingsError(`send: MESSAGE is missing: ${USAGE}`);
  const message = await readAll(stdin);
  if (message.trim() === '') throw new SettingsError('send: standard input has no message');
  return message;
}
