import { jsonOf } from '../base/errors.ts';
import { quote } from '../config/quote.ts';
import { type Approver, SettingsError } from '../config/settings.ts';
import { respond } from '../operations/respond/respond.ts';
import { followTurn } from './terminal/follow.ts';
import { type Shell, type ShellCommand, takeNames } from './terminal/shell.ts';

export const RESPOND: ShellCommand = {
  arguments: {
    flags: {
      reply: 'string',
      message: 'string',
      answer: 'string',
      request: 'string',
      timeout: 'string',
      json: 'boolean',
    },
    positionals: true,
  },
  changes: true,
  run: async (shell) => {
    const { flags, askLine } = shell;
    const [instance = ''] = takeNames('respond', shell, { needed: ['NAME'] });
    const input = {
      instance,
      request_id: flags.get('request'),
      reply: replyOf(shell),
      message: flags.get('message'),
      answers: answersOf(flags.get('answer')),
    };
    const hasAnswer = input.reply !== undefined || input.answers !== undefined;
    if (!hasAnswer && askLine === undefined)
      throw new SettingsError(
        'respond: there is no terminal to ask in; give --reply once, --reply reject or --answer TEXT',
      );
    if (hasAnswer) shell.runtime({ approver: byArguments });
    return await followTurn(shell, 'respond', (call) =>
      shell.recorded('respond', input, () => respond(shell.runtime(), input, call)),
    );
  },
};

/** A full answer on the command line needs no question, unless only a person at a terminal may settle (`human`). */
function byArguments(approver: Approver): Approver {
  return approver === 'ask' ? 'model' : approver;
}

function replyOf({ flags }: Shell): 'once' | 'reject' | undefined {
  const reply = flags.get('reply');
  if (reply === undefined || reply === 'once' || reply === 'reject') return reply;
  throw new SettingsError(`--reply: expected once or reject, got ${quote(reply)}`);
}

/** `Red`, or for several questions `[["Red"], ["Big", "Small"]]`. */
function answersOf(text: string | undefined): readonly (readonly string[])[] | undefined {
  if (text === undefined) return undefined;
  const lists = text.startsWith('[[') ? jsonOf(text) : undefined;
  if (lists === undefined) return [[text]];
  const isTexts = (list: unknown): list is string[] =>
    Array.isArray(list) && list.every((one) => typeof one === 'string');
  if (Array.isArray(lists) && lists.every(isTexts)) return lists;
  throw new SettingsError(`--answer: expected text, or a list of lists such as [["Red"]], got ${quote(text)}`);
}
