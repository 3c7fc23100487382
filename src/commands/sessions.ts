import { formatAge, quoteName } from '../operations/answer.ts';
import { listSessions } from '../operations/sessions/sessions.ts';
import type { SessionRow } from '../operations/shapes.ts';
import { EXIT } from './terminal/exit-codes.ts';
import { colourOf } from './terminal/paint.ts';
import { type ShellCommand, takeNames } from './terminal/shell.ts';
import { type Column, table } from './terminal/table.ts';

export const SESSIONS: ShellCommand = {
  arguments: { flags: { search: 'string', json: 'boolean' }, positionals: true },
  run: async (shell) => {
    const { flags, width, paint } = shell;
    const [instance = ''] = takeNames('sessions', shell, { needed: ['NAME'] });
    const input = { instance, search: flags.get('search') };
    const { data } = await shell.recorded('list_sessions', input, () =>
      listSessions(shell.runtime(), input, shell.call()),
    );
    if (flags.has('json')) shell.printJson(data);
    else if (data.sessions.length === 0) {
      const which = flags.has('search') ? 'session with that in its title' : 'session';
      shell.print(`${quoteName(data.instance)} has no ${which}.\n`);
    } else {
      shell.draw(`${table(data.sessions, columns(Date.now()), width, paint).join('\n')}\n`);
      if (data.more) shell.tell('There are more; --search TEXT finds them by their titles.\n');
    }
    return EXIT.done;
  },
};

function columns(nowMs: number): readonly Column<SessionRow>[] {
  return [
    { title: 'SESSION', cell: ({ id }) => id, least: 12 },
    { title: 'STATE', cell: ({ state }) => state, colour: ({ state }) => colourOf(state), least: 8 },
    { title: 'AGE', cell: ({ updated }) => formatAge(nowMs - Date.parse(updated)), least: 7, dropped: 1 },
    { title: 'TITLE', cell: ({ title }) => JSON.stringify(title), least: 10 },
    { title: 'DIRECTORY', cell: ({ directory }) => quoteName(directory), least: 16, keepsEnd: true, dropped: 2 },
    { title: 'REASON', cell: ({ reason = '' }) => reason, least: 16, dropped: 3 },
  ];
}
