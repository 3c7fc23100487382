import { meets, type Figure, type Unit } from './figure.ts';

const HEAD = ['figure', 'median', 'quartiles', 'min … max', 'n', 'goal', ''] as const;

/** Columns as wide as their content. */
export function renderTable(figures: readonly Figure[]): string {
  const rows = [HEAD, ...figures.map(row)];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0)));
  return rows
    .map((cells) =>
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function row({ name, unit, spread, goal, note }: Figure): readonly string[] {
  const { median, lowerQuartile, upperQuartile, min, max, samples } = spread;
  const show = (value: number): string => formatNumber(value, unit);
  const single = samples.length === 1;
  const verdict = goal === undefined ? '' : meets(median, goal) ? 'met' : 'MISSED';
  return [
    name,
    `${show(median)}${unit === 'count' ? '' : ` ${unit}`}`,
    single ? '' : `${show(lowerQuartile)} … ${show(upperQuartile)}`,
    single ? '' : `${show(min)} … ${show(max)}`,
    String(samples.length),
    goal === undefined ? '' : `${goal.is === 'at most' ? '≤' : '='} ${show(goal.value)}`,
    [verdict, note].filter(Boolean).join(' · '),
  ];
}

export function formatNumber(value: number, unit: Unit): string {
  if (unit === '×') return value.toFixed(2);
  if (unit === 'count' || unit === 'bytes') return String(Math.round(value * 100) / 100);
  return value.toFixed(1);
}
