import { type Colour, type Paint } from './paint.ts';

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
  readonly colour?: (row: Row) => Colour | undefined;
  /** Minimum useful width. */
  readonly least: number;
  /** Cut at the start: the end of a path says more. */
  readonly keepsEnd?: true;
  /** Without room, columns with the greatest number go first; those without one stay. */
  readonly dropped?: number;
}

const GAP = '  ';

/** Zero columns wide. */
const MARK = /\p{Mark}/u;
/** Two columns wide. */
const WIDE =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\u3000-\u303e\uff01-\uff60]/u;

/**
 * A line of titles and one for each row, cut to `width` columns of a terminal if defined. The cells must be clean and single
 * lines.
 */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width: number | undefined,
  paint: Paint,
): readonly string[] {
  const filled = columns.filter(({ cell }) => rows.some((row) => cell(row) !== ''));
  const natural = new Map(
    filled.map((column) => [column, Math.max(...[column.title, ...rows.map(column.cell)].map(widthOf))] as const),
  );
  const widths = fit(natural, width ?? Number.POSITIVE_INFINITY);
  const kept = [...widths.keys()];
  const line = (text: (column: Column<Row>) => string, colour: (column: Column<Row>) => Colour | undefined): string =>
    kept
      .map((column, index) => {
        const room = widths.get(column) ?? 0;
        const shown = column.keepsEnd ? cutStart(text(column), room) : cutEnd(text(column), room);
        const filling = index === kept.length - 1 ? '' : ' '.repeat(room - widthOf(shown));
        return paint(shown, colour(column)) + filling;
      })
      .join(GAP)
      .trimEnd();
  return [
    line(
      ({ title }) => title,
      () => 'bold',
    ),
    ...rows.map((row) =>
      line(
        (column) => column.cell(row),
        (column) => column.colour?.(row),
      ),
    ),
  ];
}

/** The widths of the columns that fit. */
function fit<C extends Pick<Column<never>, 'least' | 'dropped'>>(
  natural: ReadonlyMap<C, number>,
  width: number,
): ReadonlyMap<C, number> {
  const widths = new Map(natural);
  const sum = (of: (column: C, natural: number) => number): number =>
    [...widths].reduce((all, [column, own]) => all + of(column, own), GAP.length * Math.max(0, widths.size - 1));
  while (sum(({ least }, own) => Math.min(least, own)) > width) {
    const [first] = [...widths.keys()].toSorted((one, other) => (other.dropped ?? 0) - (one.dropped ?? 0));
    if (first?.dropped === undefined) break;
    widths.delete(first);
  }
  // The widest shrinks first: one long cell must not cut the others.
  for (let excess = sum((_, own) => own) - width; excess > 0; excess -= 1) {
    const [widest] = [...widths]
      .filter(([{ least }, own]) => own > least)
      .toSorted(([, one], [, other]) => other - one);
    if (widest === undefined) break;
    widths.set(widest[0], widest[1] - 1);
  }
  return widths;
}

/** In columns of a terminal. */
export function widthOf(text: string): number {
  return Array.from(text).reduce((sum, character) => sum + widthOfCharacter(character), 0);
}

function widthOfCharacter(character: string): number {
  return MARK.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
}

/** At most `room` columns; a cut ends in `…`. */
export function cutEnd(text: string, room: number): string {
  if (widthOf(text) <= room) return text;
  let left = room - 1;
  const kept: string[] = [];
  for (const character of text) {
    left -= widthOfCharacter(character);
    if (left < 0) break;
    kept.push(character);
  }
  return `${kept.join('')}…`;
}

function cutStart(text: string, room: number): string {
  if (widthOf(text) <= room) return text;
  let left = room - 1;
  const kept: string[] = [];
  for (const character of Array.from(text).toReversed()) {
    left -= widthOfCharacter(character);
    if (left < 0) break;
    kept.unshift(character);
  }
  return `…${kept.join('')}`;
}
