/**
 * Takes `rounds` samples of each of `measures`, one of each in turn (A B A B …): what else runs on the
 * machine then burdens all of them alike, and neighbours can be compared. One round before them is thrown away.
 */
export async function interleave<Name extends string>(
  rounds: number,
  measures: Readonly<Record<Name, () => Promise<number>>>,
): Promise<Record<Name, number[]>> {
  // Object.entries forgets which names there are.
  const entries = Object.entries(measures) as [Name, () => Promise<number>][];
  const samples = Object.fromEntries(entries.map(([name]) => [name, []])) as unknown as Record<Name, number[]>;
  for (const [, measure] of entries) await measure();
  for (let round = 0; round < rounds; round++) {
    for (const [name, measure] of entries) samples[name].push(await measure());
  }
  return samples;
}
