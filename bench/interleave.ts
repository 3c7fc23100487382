type Measures = Readonly<Record<string, () => Promise<unknown>>>;
type Samples<M extends Measures> = { readonly [Name in keyof M]: Awaited<ReturnType<M[Name]>>[] };

/**
 * Takes `rounds` samples of each of `measures` in turn (A B A B …), so that other load on the machine affects all alike and
 * adjacent samples compare. A warm-up round, whose samples are dropped, comes first.
 */
export async function interleave<M extends Measures>(rounds: number, measures: M): Promise<Samples<M>> {
  const samples = Object.fromEntries(Object.keys(measures).map((name): [string, unknown[]] => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const [name, measure] of Object.entries(measures)) {
      const sample = await measure();
      if (round > 0) samples[name]?.push(sample);
    }
  }
  return samples as Samples<M>;
}
