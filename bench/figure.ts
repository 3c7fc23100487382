import { spreadOf, type Spread } from './statistics.ts';

export type Unit = 'ms' | 'MB' | '×' | 'bytes' | 'count';

/** The limit of a figure. */
export interface Goal {
  readonly is: 'at most' | 'exactly';
  readonly value: number;
}

/** One line of the table. */
export interface Figure {
  readonly name: string;
  readonly unit: Unit;
  readonly spread: Spread;
  readonly goal?: Goal;
  readonly note?: string;
}

export function figure(
  name: string,
  unit: Unit,
  samples: readonly number[] | number,
  rest: { readonly goal?: Goal; readonly note?: string } = {},
): Figure {
  return { name, unit, spread: spreadOf(typeof samples === 'number' ? [samples] : samples), ...rest };
}

export function atMost(value: number): Goal {
  return { is: 'at most', value };
}

export function exactly(value: number): Goal {
  return { is: 'exactly', value };
}

/** Judged by the median. */
export function meets(median: number, goal: Goal): boolean {
  return goal.is === 'at most' ? median <= goal.value : median === goal.value;
}
