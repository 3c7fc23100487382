import { type Goal, meets, type Unit } from './figure.ts';
import { formatNumber } from './table.ts';

/** A limit that CI checks on every commit. */
export interface Gate {
  readonly name: string;
  readonly unit: Unit;
  readonly measured: number;
  readonly limit: Goal;
  /** A limit that `measured` must miss; a gate that holds by this one too could not fail. */
  readonly wrongLimit: Goal;
}

/** Why `gate` fails, or undefined. */
export function problemOf({ name, unit, measured, limit, wrongLimit }: Gate): string | undefined {
  if (!meets(measured, limit)) return `${name}: expected ${describe(limit, unit)}, got ${formatNumber(measured, unit)}`;
  if (meets(measured, wrongLimit)) {
    return `${name}: cannot fail: ${formatNumber(measured, unit)} is also ${describe(wrongLimit, unit)}`;
  }
  return undefined;
}

export function describe({ is, value }: Goal, unit: Unit): string {
  return `${is} ${formatNumber(value, unit)}${unit === 'count' ? '' : ` ${unit}`}`;
}
