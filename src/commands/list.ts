import { systemClock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { safeToShow } from '../base/plain-text.ts';
import { formatAge, quoteName } from '../operations/answer.ts';
import { instances } from '../operations/listing/instances.ts';
import type { InstanceList, InstanceRow } from '../operations/shapes.ts';
import { EXIT, type Exit } from './terminal/exit-codes.ts';
import { colourOf } from './terminal/paint.ts';
import { type Shell, type ShellCommand, takeNames, widthOfTerminal } from './terminal/shell.ts';
import { withoutId } from './terminal/shell-words.ts';
import { type Column, cutEnd, table } from './terminal/table.ts';

/** Between two surveys: soon enough for a person, and cheap for an idle fleet. */
const SURVEY_MS = 2_000;

export const LIST: ShellCommand = {
  arguments: { flags: { watch: 'boolean', json: 'boolean' }, positionals: true },
  run: async (shell) => {
    const [match] = takeNames('list', shell, { needed: [], optional: ['PART'] });
    if (shell.flags.has('watch')) return await watch(shell, match);
    const list = await survey(shell, match);
    if (shell.flags.has('json')) shell.printJson(list.data);
    else {
      shell.draw(`${lines(list, shell).join('\n')}\n`);
      for (const note of list.data.notes) shell.tell(`note: ${note}\n`);
    }
    return EXIT.done;
  },
};

interface Listed {
  readonly data: InstanceList;
  /** Explains an empty list. */
  readonly text: string;
}

async function survey(shell: Shell, match: string | undefined, onChange?: () => void): Promise<Listed> {
  const runtime = shell.runtime(onChange && { onChange });
  return safeToShow(await instances(runtime, { match, offset: 0, limit: Number.MAX_SAFE_INTEGER }, shell.call()));
}

function lines({ data, text }: Listed, { paint, width }: Shell): readonly string[] {
  if (data.instances.length === 0) return [text.split('\n', 1)[0] ?? ''];
  return table(data.instances, columns(Date.now()), width, paint);
}

/** Until Ctrl-C: redraws the table in place on a terminal; elsewhere prints it again at each change. */
async function watch(shell: Shell, match: string | undefined): Promise<Exit> {
  const { stdout } = shell.process;
  const isJson = shell.flags.has('json');
  const isDrawn = stdout.isTTY && !isJson;
  let wake: LinkedAbort | undefined;
  const changed = (): void => wake?.abort();
  if (isDrawn) {
    stdout.on('resize', changed);
    shell.draw(HIDE_CURSOR);
  }
  try {
    let last = '';
    while (!shell.signal.aborted) {
      wake = new LinkedAbort(shell.signal);
      const list = await survey(shell, match, changed);
      if (shell.signal.aborted) break;
      const now = JSON.stringify(list.data);
      if (isDrawn) shell.draw(screen(list, { ...shell, width: widthOfTerminal(stdout) }, stdout.rows || 24));
      else if (now !== last) shell.draw(isJson ? `${now}\n` : `${lines(list, shell).join('\n')}\n\n`);
      last = now;
      await systemClock.sleep(SURVEY_MS, wake.signal);
      wake.end();
    }
  } finally {
    wake?.end();
    stdout.off('resize', changed);
    if (isDrawn) shell.draw(SHOW_CURSOR);
  }
  return EXIT.done;
}

const HIDE_CURSOR = '\u001b[?25l';
const SHOW_CURSOR = '\u001b[?25h';
const HOME = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

/** One screen, drawn over the one before: clearing it first would flicker. */
function screen(list: Listed, shell: Shell, rows: number): string {
  const { width = 80, paint } = shell;
  const head = `${list.data.total} instances${list.data.states === '' ? '' : `: ${list.data.states}`} (Ctrl-C ends)`;
  const all = [paint(cutEnd(head, width), 'dim'), ...lines(list, shell)];
  const shown = all.length < rows ? all : [...all.slice(0, rows - 2), `and ${all.length - rows + 2} more`];
  return HOME + shown.map((line) => `${line}${CLEAR_LINE}\n`).join('') + CLEAR_BELOW;
}

function columns(nowMs: number): readonly Column<InstanceRow>[] {
  return [
    { title: 'NAME', cell: ({ name }) => quoteName(name), least: 16 },
    { title: 'STATE', cell: ({ state }) => state, colour: ({ state }) => colourOf(state), least: 8 },
    { title: 'WHAT', cell: (row) => whatOf(row, nowMs), least: 36 },
    {
      title: 'DIRECTORY',
      cell: ({ directory }) => (directory === undefined ? '' : quoteName(directory)),
      least: 16,
      keepsEnd: true,
      dropped: 1,
    },
    { title: 'HOST', cell: ({ host }) => quoteName(host), least: 8, dropped: 2 },
    { title: 'VIA', cell: (row) => [row.via, ...(row.also ?? [])].join(', '), least: 12, dropped: 3 },
    { title: 'OPENCODE', cell: ({ version = '' }) => version, least: 8, dropped: 4 },
    { title: 'SOURCE', cell: ({ sources }) => sources.join(', '), least: 6, dropped: 5 },
  ];
}

/** What it waits for, the reason for its state, or its latest session. */
function whatOf({ waiting, reason, last_seen, stale_seconds, session }: InstanceRow, nowMs: number): string {
  const stale = stale_seconds === undefined ? '' : `as of ${stale_seconds} s ago: `;
  if (waiting !== undefined) return `${stale}${waiting.map(withoutId).join('; ')}`;
  const seen = last_seen === undefined ? '' : `last seen ${formatAge(nowMs - Date.parse(last_seen))} ago`;
  if (reason !== undefined) return `${stale}${[reason, seen].filter(Boolean).join('; ')}`;
  if (session === undefined) return `${stale}${seen}`;
  return `${stale}${JSON.stringify(session.title)}, ${formatAge(nowMs - Date.parse(session.updated))} ago`;
}
