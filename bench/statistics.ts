/** Quartiles of a set of samples, in their unit. */
export interface Spread {
  readonly median: number;
  readonly lowerQuartile: number;
  readonly upperQuartile: number;
  readonly min: number;
  readonly max: number;
  /** In the order taken. */
  readonly samples: readonly number[];
}

export function spreadOf(samples: readonly number[]): Spread {
  if (samples.length === 0) throw new Error('Expected at least one sample, got none');
  const sorted = samples.toSorted((one, other) => one - other);
  const at = (share: number): number => {
    const place = share * (sorted.length - 1);
    const below = sorted[Math.floor(place)] ?? Number.NaN;
    const above = sorted[Math.ceil(place)] ?? Number.NaN;
    return below + (above - below) * (place - Math.floor(place));
  };
  return { median: at(0.5), lowerQuartile: at(0.25), upperQuartile: at(0.75), min: at(0), max: at(1), samples };
}

/** The ratio of each sample of `ours` to the adjacent one of `theirs`. */
export function ratios(ours: readonly number[], theirs: readonly number[]): number[] {
  return paired(ours, theirs, (one, other) => one / other);
}

export function differences(ours: readonly number[], theirs: readonly number[]): number[] {
  return paired(ours, theirs, (one, other) => one - other);
}

function paired(
  ours: readonly number[],
  theirs: readonly number[],
  compare: (one: number, other: number) => number,
): number[] {
  if (ours.length !== theirs.length) throw new Error(`Expected pairs, got ${ours.length} and ${theirs.length} samples`);
  return ours.map((sample, index) => compare(sample, theirs[index] ?? Number.NaN));
}
