import { describe, expect, onTestFinished, test } from 'vitest';

import type { Connection } from '../../src/http/exchange.ts';
import type { KeyPair } from '../../src/identity/merge.ts';
import { type Pair, Prover } from '../../src/identity/prover.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { deferred, type Deferred } from '../rig/wait.ts';

const connectionTo = ({ url }: { readonly url: string }): Connection => ({ endpoint: { url, route: 'loopback' } });

describe('the prover', () => {
  function openProver() {
    const clock = new ManualClock();
    const attempts: { readonly pair: string; readonly answer: Deferred<boolean> }[] = [];
    let settled = 0;
    const probes: string[] = [];
    const prover = new Prover({
      clock,
      isSame: (_, listen, abort, signal) => {
        const answer = deferred<boolean>();
        signal.addEventListener('abort', () => answer.resolve(false), { once: true });
        attempts.push({ pair: `${listen.endpoint.url}<${abort.endpoint.url}`, answer });
        return answer.promise;
      },
      probe: (keys) => Promise.resolve(probes.push(keys.join(' '))),
      onSettled: () => (settled += 1),
    });
    onTestFinished(() => prover.close());
    return {
      prover,
      clock,
      attempts,
      probes,
      settled: () => settled,
      answer: async (index: number, same: boolean) => {
        attempts[index]?.answer.resolve(same);
        await settle();
      },
    };
  }

  const pair = (one: string, other: string): Pair => ({
    keys: [one, other],
    connections: [connectionTo({ url: one }), connectionTo({ url: other })],
    dialect: 'opencode-1',
  });
  const pairsOf = (list: readonly KeyPair[]): string[] => list.map((keys) => keys.join(' '));

  /** Opens a prover and lets it prove these pairs. */
  async function openProverWithProofs(...pairs: readonly Pair[]) {
    const opened = openProver();
    opened.prover.consider(pairs);
    for (const index of pairs.keys()) await opened.answer(index, true);
    return opened;
  }

  test('keeps a proof until an end goes unhealthy, then keeps it as a former proof', async () => {
    const { prover, attempts, settled } = await openProverWithProofs(pair('a', 'b'));
    expect(attempts.map((one) => one.pair)).toEqual(['a<b']);
    expect(settled()).toBe(1);
    expect(prover.proofs()).toEqual({ proven: [['a', 'b']], former: [] });
    prover.consider([pair('a', 'b')]);
    expect(attempts).toHaveLength(1);
    prover.unhealthy('b');
    expect(prover.proofs()).toEqual({ proven: [], former: [['a', 'b']] });
  });

  test('drops a former proof when both ends are healthy again', async () => {
    const { prover, attempts } = await openProverWithProofs(pair('a', 'b'));
    prover.unhealthy('b');
    prover.healthy('a', (key) => key === 'a');
    expect(pairsOf(prover.proofs().former)).toEqual(['a b']);
    prover.healthy('b', () => true);
    expect(prover.proofs()).toEqual({ proven: [], former: [] });
    prover.consider([pair('a', 'b')]);
    expect(attempts).toHaveLength(2);
  });

  describe('a returning end', () => {
    async function openWithReturningEnd() {
      const opened = await openProverWithProofs(pair('a', 'b'), pair('a', 'c'));
      opened.prover.unhealthy('a');
      opened.prover.healthy('a', () => true);
      return opened;
    }

    test('is held back until a proof of any of its pairs succeeds', async () => {
      const { prover, answer, settled } = await openWithReturningEnd();
      expect([...prover.returning()]).toEqual(['a']);
      prover.consider([pair('a', 'b'), pair('a', 'c')]);
      expect([...prover.returning()]).toEqual(['a']);
      await answer(2, true);
      expect([...prover.returning()]).toEqual([]);
      expect(settled()).toBe(3);
    });

    test('is listed once the proofs of all its pairs have failed', async () => {
      const { prover, answer, settled, probes } = await openWithReturningEnd();
      prover.consider([pair('a', 'b'), pair('a', 'c')]);
      await answer(2, false);
      expect([[...prover.returning()], settled()]).toEqual([['a'], 3]);
      await answer(3, false);
      expect([[...prover.returning()], settled()]).toEqual([[], 4]);
      expect(probes).toEqual(['a b', 'a c']);
    });

    test('stays with its instance if it goes unhealthy again before a proof', async () => {
      const { prover } = await openWithReturningEnd();
      prover.unhealthy('a');
      expect([...prover.returning()]).toEqual([]);
      expect(pairsOf(prover.proofs().former)).toEqual(['a c', 'a b']);
    });

    test('is listed if the pair is no longer suspected', async () => {
      const { prover } = await openWithReturningEnd();
      prover.consider([]);
      expect([...prover.returning()]).toEqual([]);
    });
  });

  test('ignores a proof that succeeds after an end went unhealthy', async () => {
    const { prover, answer } = openProver();
    prover.consider([pair('a', 'b')]);
    prover.unhealthy('a');
    await answer(0, true);
    expect(prover.proofs()).toEqual({ proven: [], former: [] });
  });

  test('forgets the proofs of an address that is no longer registered', async () => {
    const { prover } = await openProverWithProofs(pair('a', 'b'));
    prover.forget('a');
    expect(prover.proofs()).toEqual({ proven: [], former: [] });
  });

  test('lists the newest former proof first', async () => {
    const { prover } = await openProverWithProofs(pair('a', 'b'), pair('a', 'c'));
    prover.unhealthy('b');
    prover.unhealthy('c');
    expect(pairsOf(prover.proofs().former)).toEqual(['a c', 'a b']);
  });

  test('repeats failed proofs at growing intervals, reversing the pair each time', async () => {
    const { prover, clock, attempts, answer } = openProver();
    const gaps: number[] = [];
    for (let attempt = 0; attempt < 6; attempt += 1) {
      let gap = 0;
      prover.consider([pair('a', 'b')]);
      while (attempts.length === attempt) {
        await clock.advance(1000);
        gap += 1000;
        prover.consider([pair('a', 'b')]);
      }
      gaps.push(gap);
      await answer(attempt, false);
    }
    expect(gaps).toEqual([0, 2000, 8000, 32_000, 128_000, 512_000]);
    expect(attempts.slice(0, 3).map((one) => one.pair)).toEqual(['a<b', 'b<a', 'a<b']);
  });

  test('repeats failed proofs of the OpenCode 2 preview at a constant interval', async () => {
    const { prover, clock, attempts, answer } = openProver();
    const preview: Pair = { ...pair('a', 'b'), dialect: 'opencode-2-preview' };
    prover.consider([preview]);
    for (let attempt = 0; attempt < 4; attempt += 1) {
      await answer(attempt, false);
      await clock.advance(1000);
      prover.consider([preview]);
      expect(attempts).toHaveLength(attempt + 1);
      await clock.advance(1000);
      prover.consider([preview]);
    }
    expect(attempts).toHaveLength(5);
  });

  test('retries a failed pair immediately after an end goes unhealthy', async () => {
    const { prover, attempts, answer } = openProver();
    prover.consider([pair('a', 'b')]);
    await answer(0, false);
    prover.unhealthy('a');
    prover.consider([pair('a', 'b')]);
    expect(attempts).toHaveLength(2);
  });

  test('tries at most four pairs at once', async () => {
    const { prover, attempts, answer } = openProver();
    prover.consider(['b', 'c', 'd', 'e', 'f', 'g'].map((other) => pair('a', other)));
    expect(attempts).toHaveLength(4);
    await answer(0, false);
    expect(attempts).toHaveLength(5);
    let idle = false;
    void prover.idle().then(() => (idle = true));
    for (const index of [1, 2, 3, 4]) await answer(index, false);
    expect([attempts.length, idle]).toEqual([6, false]);
    await answer(5, false);
    expect(idle).toBe(true);
  });

  test('cancels running proofs when closed, and starts none afterwards', async () => {
    const { prover, attempts } = openProver();
    prover.consider([pair('a', 'b')]);
    await prover.close();
    prover.consider([pair('c', 'd')]);
    expect(attempts).toHaveLength(1);
    expect(prover.proofs().proven).toEqual([]);
  });
});
