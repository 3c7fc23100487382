export type NonEmpty<T> = readonly [T, ...T[]];

export function mapNonEmpty<T, R>([first, ...rest]: NonEmpty<T>, map: (item: T) => R): NonEmpty<R> {
  return [map(first), ...rest.map(map)];
}

export function sortNonEmpty<T>(items: NonEmpty<T>, order: (one: T, other: T) => number): NonEmpty<T> {
  const [first = items[0], ...rest] = items.toSorted(order);
  return [first, ...rest];
}

/** Groups in order of first appearance. */
export function groupBy<T>(items: Iterable<T>, keyOf: (item: T) => string): Map<string, [T, ...T[]]> {
  const groups = new Map<string, [T, ...T[]]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

export function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
