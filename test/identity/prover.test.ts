import { describe, expect, onTestFinished, test } from 'vitest';

import type { Connection } from '../../src/http/exchange.ts';
import type { KeyPair } from '../../src/identity/merge.ts';
import { type Pair, Prover } from '../../src/identity/prover.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { deferred, type Deferred } from '../rig/wait.ts';

const via = ({ url }: { readonly url: string }): Connection => ({ endpoint: { url, route: 'loopback' } });

describe('the prover', () => {
  function rig() {
    const clock = new ManualClock();
    const tried: { readonly pair: string; readonly answer: Deferred<boolean> }[] = [];
    let settled = 0;
    const probes: string[] = [];
    const prover = new Prover({
      clock,
      isSame: (_, listen, abort, signal) => {
        const answer = deferred<boolean>();
        signal.addEventListener('abort', () => answer.resolve(false), { once: true });
        tried.push({ pair: `${listen.endpoint.url}<${abort.endpoint.url}`, answer });
        return answer.promise;
      },
      probe: (keys) => Promise.resolve(probes.push(keys.join(' '))),
      onSettled: () => (settled += 1),
    });
    onTestFinished(() => prover.close());
    return {
      prover,
      clock,
      tried,
      probes,
      settled: () => settled,
      answer: async (index: number, same: boolean) => {
        tried[index]?.answer.resolve(same);
        await settle();
      },
    };
  }

  const pair = (one: string, other: string): Pair => ({
    keys: [one, other],
    connections: [via({ url: one }), via({ url: other })],
    dialect: 'opencode-1',
  });
  const pairsOf = (list: readonly KeyPair[]): string[] => list.map((keys) => keys.join(' '));

  /** A prover that has proven these pairs. */
  async function proven(...pairs: readonly Pair[]) {
    const made = rig();
    made.prover.consider(pairs);
    for (const index of pairs.keys()) await made.answer(index, true);
    return made;
  }

  test('keeps a proof until an end goes unhealthy, and then as a former one', async () => {
    const { prover, tried, settled } = await proven(pair('a', 'b'));
    expect(tried.map((one) => one.pair)).toEqual(['a<b']);
    expect(settled()).toBe(1);
    expect(prover.proofs()).toEqual({ proven: [['a', 'b']], former: [] });
    prover.consider([pair('a', 'b')]);
    expect(tried).toHaveLength(1);
    prover.unhealthy('b');
    expect(prover.proofs()).toEqual({ proven: [], former: [['a', 'b']] });
  });

  test('drops a former proof when both ends are healthy again', async () => {
    const { prover, tried } = await proven(pair('a', 'b'));
    prover.unhealthy('b');
    prover.healthy('a', (key) => key === 'a');
    expect(pairsOf(prover.proofs().former)).toEqual(['a b']);
    prover.healthy('b', () => true);
    expect(prover.proofs()).toEqual({ proven: [], former: [] });
    prover.consider([pair('a', 'b')]);
    expect(tried).toHaveLength(2);
  });

  describe('a returning end', () => {
    async function back() {
      const made = await proven(pair('a', 'b'), pair('a', 'c'));
      made.prover.unhealthy('a');
      made.prover.healthy('a', () => true);
      return made;
    }

    test('is held back until any pair proves it', async () => {
      const { prover, answer, settled } = await back();
      expect([...prover.returning()]).toEqual(['a']);
      prover.consider([pair('a', 'b'), pair('a', 'c')]);
      expect([...prover.returning()]).toEqual(['a']);
      await answer(2, true);
      expect([...prover.returning()]).toEqual([]);
      expect(settled()).toBe(3);
    });

    test('is listed if the proof fails and it still answers', async () => {
      const { prover, answer, settled, probes } = await back();
      prover.consider([pair('a', 'b'), pair('a', 'c')]);
      await answer(2, false);
      expect([[...prover.returning()], settled()]).toEqual([['a'], 3]);
      await answer(3, false);
      expect([[...prover.returning()], settled()]).toEqual([[], 4]);
      expect(probes).toEqual(['a b', 'a c']);
    });

    test('stays with its instance if it is gone again before a proof', async () => {
      const { prover } = await back();
      prover.unhealthy('a');
      expect([...prover.returning()]).toEqual([]);
      expect(pairsOf(prover.proofs().former)).toEqual(['a c', 'a b']);
    });

    test('is listed if the pair is no longer suspected', async () => {
      const { prover } = await back();
      prover.consider([]);
      expect([...prover.returning()]).toEqual([]);
    });
  });

  test('ignores a proof that succeeds after an end went unhealthy', async () => {
    const { prover, answer } = rig();
    prover.consider([pair('a', 'b')]);
    prover.unhealthy('a');
    await answer(0, true);
    expect(prover.proofs()).toEqual({ proven: [], former: [] });
  });

  test('forgets an address without a registration', async () => {
    const { prover } = await proven(pair('a', 'b'));
    prover.forget('a');
    expect(prover.proofs()).toEqual({ proven: [], former: [] });
  });

  test('lists the newest former proof first', async () => {
    const { prover } = await proven(pair('a', 'b'), pair('a', 'c'));
    prover.unhealthy('b');
    prover.unhealthy('c');
    expect(pairsOf(prover.proofs().former)).toEqual(['a c', 'a b']);
  });

  test('repeats failed proofs with growing gaps, in the other order each time', async () => {
    const { prover, clock, tried, answer } = rig();
    const gaps: number[] = [];
    for (let attempt = 0; attempt < 6; attempt += 1) {
      let gap = 0;
      prover.consider([pair('a', 'b')]);
      while (tried.length === attempt) {
        await clock.advance(1000);
        gap += 1000;
        prover.consider([pair('a', 'b')]);
      }
      gaps.push(gap);
      await answer(attempt, false);
    }
    expect(gaps).toEqual([0, 2000, 8000, 32_000, 128_000, 512_000]);
    expect(tried.slice(0, 3).map((one) => one.pair)).toEqual(['a<b', 'b<a', 'a<b']);
  });

  test('repeats failed proofs of the preview without growing gaps', async () => {
    const { prover, clock, tried, answer } = rig();
    const preview: Pair = { ...pair('a', 'b'), dialect: 'opencode-2-preview' };
    prover.consider([preview]);
    for (let attempt = 0; attempt < 4; attempt += 1) {
      await answer(attempt, false);
      await clock.advance(1000);
      prover.consider([preview]);
      expect(tried).toHaveLength(attempt + 1);
      await clock.advance(1000);
      prover.consider([preview]);
    }
    expect(tried).toHaveLength(5);
  });

  test('tries a returning end at once', async () => {
    const { prover, tried, answer } = rig();
    prover.consider([pair('a', 'b')]);
    await answer(0, false);
    prover.unhealthy('a');
    prover.consider([pair('a', 'b')]);
    expect(tried).toHaveLength(2);
  });

  test('tries at most four pairs at once', async () => {
    const { prover, tried, answer } = rig();
    prover.consider(['b', 'c', 'd', 'e', 'f', 'g'].map((other) => pair('a', other)));
    expect(tried).toHaveLength(4);
    await answer(0, false);
    expect(tried).toHaveLength(5);
    let idle = false;
    void prover.idle().then(() => (idle = true));
    for (const index of [1, 2, 3, 4]) await answer(index, false);
    expect([tried.length, idle]).toEqual([6, false]);
    await answer(5, false);
    expect(idle).toBe(true);
  });

  test('ends proofs when closed, and starts none afterwards', async () => {
    const { prover, tried } = rig();
    prover.consider([pair('a', 'b')]);
    await prover.close();
    prover.consider([pair('c', 'd')]);
    expect(tried).toHaveLength(1);
    expect(prover.proofs().proven).toEqual([]);
  });
});
