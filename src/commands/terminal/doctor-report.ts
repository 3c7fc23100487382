import type { Check, DoctorReport, Section, Todo, CheckVerdict } from '../../doctor/report.ts';
import type { Colour, Paint } from './paint.ts';
import { cutEnd, widthOf } from './table.ts';

const COLOURS: Readonly<Record<CheckVerdict, Colour>> = { ok: 'green', warn: 'yellow', broken: 'red', '-': 'dim' };
const VERDICT_WIDTH = 6;
/** Before the text of a line. */
const MARGIN = 2 + VERDICT_WIDTH + 2;
/** Details of one line; `--json` has all. */
const MAX_DETAILS = 12;
/** The most important come first. */
const MAX_TODO = 20;

/** The report as text, in lines of at most `width` columns unless a word or command is longer. Its strings must be clean. */
export function drawReport(report: DoctorReport, paint: Paint, width = Number.POSITIVE_INFINITY): string {
  const lines = [
    ...report.sections.flatMap((section) => sectionLines(section, paint, width)),
    ...todoLines(report, paint, width),
  ];
  return `${lines.join('\n')}\n`;
}

function sectionLines({ id, title, checks }: Section, paint: Paint, width: number): readonly string[] {
  const lines = checks.flatMap((one) => {
    const isUnused = id === 'sources' && one.verdict === '-';
    if (!isUnused) return checkLines(one, 2, paint, width);
    // It gets one line.
    const text = cutEnd(one.text, width - MARGIN - widthOf(`${one.subject}: `));
    return checkLines({ ...one, text }, 2, paint, Number.POSITIVE_INFINITY);
  });
  return [paint(title, 'bold'), ...lines, ''];
}

function checkLines(one: Check, indent: number, paint: Paint, width: number): readonly string[] {
  const { verdict, subject, text, details = [] } = one;
  const left = ' '.repeat(indent);
  const hanging = ' '.repeat(indent + VERDICT_WIDTH + 2);
  const [first = '', ...rest] = wrap(`${subject}: ${text}`, width - hanging.length);
  const more = details.length - MAX_DETAILS;
  return [
    `${left}${paint(verdict, COLOURS[verdict])}${' '.repeat(VERDICT_WIDTH + 2 - verdict.length)}${first}`,
    ...rest.map((line) => hanging + line),
    ...details.slice(0, MAX_DETAILS).flatMap((detail) => checkLines(detail, indent + 4, paint, width)),
    ...(more > 0 ? [`${' '.repeat(indent + 4)}and ${more} more; --json has all`] : []),
  ];
}

function todoLines({ todo, verdict }: DoctorReport, paint: Paint, width: number): readonly string[] {
  if (todo.length === 0) return [verdict === 'ok' ? 'Nothing to mend.' : 'Nothing is broken.'];
  const more = todo.length - MAX_TODO;
  return [
    paint('What to do', 'bold'),
    ...todo.slice(0, MAX_TODO).flatMap((one, index) => oneTodo(one, index + 1, paint, width)),
    ...(more > 0 ? [`  and ${more} more; --json has all`] : []),
  ];
}

function oneTodo(
  { verdict, subject, text, command }: Todo,
  number: number,
  paint: Paint,
  width: number,
): readonly string[] {
  const head = `  ${number}. `;
  const hanging = ' '.repeat(head.length);
  const said = `${subject}: ${text}${command !== undefined && !text.endsWith(':') ? ':' : ''}`;
  const lines = wrap(said, width - head.length);
  return [
    ...lines.map((line, index) => (index === 0 ? paint(head, COLOURS[verdict]) : hanging) + line),
    // Unbroken, to be copied.
    ...(command === undefined ? [] : [`${hanging}  ${paint(command, 'cyan')}`]),
  ];
}

/** Lines of at most `room` columns, broken between words; a longer word stays whole. */
function wrap(text: string, room: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const next = line === '' ? word : `${line} ${word}`;
    if (line !== '' && widthOf(next) > room) {
      lines.push(line);
      line = word;
    } else line = next;
  }
  return [...lines, line];
}
