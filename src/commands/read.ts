import { shellWord } from '../base/plain-text.ts';
import { formatAge, quoteName } from '../operations/answer.ts';
import { read } from '../operations/sessions/read.ts';
import type { MessageRow, TranscriptView } from '../operations/shapes.ts';
import { EXIT } from './terminal/exit-codes.ts';
import { colourOf, type Paint } from './terminal/paint.ts';
import { type Shell, type ShellCommand, takeNames, countOf } from './terminal/shell.ts';

export const READ: ShellCommand = {
  arguments: {
    flags: { limit: 'string', message: 'string', offset: 'string', before: 'string', json: 'boolean' },
    positionals: true,
  },
  run: async (shell) => {
    const { flags } = shell;
    const [instance = '', session_id] = takeNames('read', shell, { needed: ['NAME'], optional: ['SESSION'] });
    const offset = flags.get('offset');
    const input = {
      instance,
      session_id,
      message_limit: countOf('limit', flags.get('limit') ?? '10', 100),
      message_id: flags.get('message'),
      offset: offset === undefined ? undefined : countOf('offset', offset, 999_999_999),
      before: flags.get('before'),
    };
    const { data } = await shell.recorded('read', input, () => read(shell.runtime(), input, shell.call()));
    if (flags.has('json')) shell.printJson(data);
    else show(data, shell);
    return EXIT.done;
  },
};

/** Before each line of a message, so that none passes for one of ours. */
const MARK = '│ ';

function show(data: TranscriptView, { draw, paint, tell }: Shell): void {
  const { session, instance } = data;
  const age = formatAge(Date.now() - Date.parse(session.updated));
  const reason = session.reason === undefined ? '' : ` (${session.reason})`;
  const again = `opencode-mcp read ${shellWord(instance)} ${session.id}`;
  const lines = [
    `${quoteName(instance)}, ${session.id} ${JSON.stringify(session.title)}: ${paint(session.state, colourOf(session.state))}${reason}, ${age} ago`,
    ...(data.messages.length === 0 ? ['No messages yet.'] : []),
    ...data.messages.flatMap((row) => messageLines(row, again, paint)),
  ];
  draw(`${lines.join('\n')}\n`);
  for (const request of data.waiting ?? [])
    tell(`It waits for ${request}. Settle it: opencode-mcp respond ${shellWord(instance)}\n`);
  if (data.before !== undefined) tell(`Older messages: ${again} --before ${shellWord(data.before)}\n`);
}

function messageLines(row: MessageRow, again: string, paint: Paint): readonly string[] {
  const { role, id, created, state, text, tools = [], error, cut } = row;
  const age = formatAge(Date.now() - Date.parse(created));
  return [
    '',
    `${paint(role, 'bold')} ${paint(`${id}, ${age} ago`, 'dim')}${state === 'complete' ? '' : ` (${state})`}`,
    ...(text === '' ? [] : text.replace(/\n$/, '').split('\n')).map((line) => MARK + line),
    ...(cut === undefined ? [] : [`Not all: ${again} --message ${id} --offset ${cut.next_offset}`]),
    ...tools.map((tool) => paint(`tool: ${tool}`, 'dim')),
    ...(error === undefined ? [] : [paint(`error: ${error}`, 'red')]),
  ];
}
