/** Takes one sample; `keep` is false for the warm-up. */
export type Measure = (keep: boolean) => Promise<void>;

/**
 * Takes `rounds` samples of each of `measures` in turn (A B A B …), so that other load on the machine affects all alike and
 * adjacent samples compare. A warm-up round comes first.
 */
export async function interleave(rounds: number, measures: Readonly<Record<string, Measure>>): Promise<void> {
  for (let round = 0; round <= rounds; round++) {
    for (const measure of Object.values(measures)) await measure(round > 0);
  }
}
