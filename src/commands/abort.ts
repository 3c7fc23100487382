import { abortSession } from '../operations/send/abort.ts';
import { EXIT } from './terminal/exit-codes.ts';
import { type ShellCommand, takeNames } from './terminal/shell.ts';

export const ABORT: ShellCommand = {
  arguments: { flags: { json: 'boolean' }, positionals: true },
  changes: true,
  run: async (shell) => {
    const [instance = '', session_id] = takeNames('abort', shell, { needed: ['NAME'], optional: ['SESSION'] });
    const input = { instance, session_id };
    const { data, text } = await shell.recorded('abort_session', input, () =>
      abortSession(shell.runtime(), input, shell.call()),
    );
    if (shell.flags.has('json')) shell.printJson(data);
    else shell.print(`${text}\n`);
    return EXIT.done;
  },
};
