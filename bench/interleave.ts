/** Takes one sample; `keep` says whether it counts. */
export type Measure = (keep: boolean) => Promise<void>;

/**
 * Takes `rounds` samples with each of `measures`, one of each in turn (A B A B …): what else runs on the machine
 * burdens all of them alike, and neighbours can be compared. One round before them does not count.
 */
export async function interleave(rounds: number, measures: Readonly<Record<string, Measure>>): Promise<void> {
  for (let round = 0; round <= rounds; round++) {
    for (const measure of Object.values(measures)) await measure(round > 0);
  }
}
