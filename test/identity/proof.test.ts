import { afterEach, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { KeyPair } from '../../src/identity/merge.ts';
import { isSameByAbort } from '../../src/identity/proof.ts';
import { type Pair, Prover } from '../../src/identity/prover.ts';
import type { Connection } from '../../src/http/exchange.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../rig/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { deferred, type Deferred, until } from '../rig/wait.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';

const closers: Array<() => Promise<unknown>> = [];

afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

async function fakeOpencode(options?: FakeOptions): Promise<FakeOpencode> {
  const fake = await startFakeOpencode(options);
  closers.push(fake.close);
  return fake;
}

async function tunnelTo(fake: FakeOpencode): Promise<FaultProxy> {
  const proxy = await startFaultProxy(fake.url);
  closers.push(proxy.close);
  return proxy;
}

const via = ({ url }: { readonly url: string }): Connection => ({ endpoint: { url, route: 'loopback' } });

describe('a proof', () => {
  const { signal } = new AbortController();
  const deps = { clock: systemClock, deadlineMs: 20_000 };

  test('succeeds for two connections to one process, in either order', async () => {
    const fake = await fakeOpencode();
    const tunnel = await tunnelTo(fake);
    expect(await isSameByAbort(via(fake), via(tunnel), deps, signal)).toBe(true);
    expect(await isSameByAbort(via(tunnel), via(fake), deps, signal)).toBe(true);
    await until('the streams to be closed', () => fake.openStreams === 0);
  });

  test('uses a new valid session id each time, and names no directory', async () => {
    const fake = await fakeOpencode();
    const tunnel = await tunnelTo(fake);
    await isSameByAbort(via(fake), via(tunnel), deps, signal);
    await isSameByAbort(via(fake), via(tunnel), deps, signal);
    const targets = tunnel.requests.map(({ method, target }) => `${method} ${target}`);
    expect(new Set(targets).size).toBe(2);
    for (const target of targets) expect(target).toMatch(/^POST \/session\/ses_[0-9A-Za-z]{26}\/abort$/);
  });

  test('repeats the abort if the stream missed the event', async () => {
    const [fake, elsewhere] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    const way = await tunnelTo(elsewhere);
    const clock = new ManualClock();
    const proving = isSameByAbort(via(fake), via(way), { clock, deadlineMs: 60_000 }, signal);
    for (const [index, pauseMs] of [100, 500, 2000].entries()) {
      await until('the abort', () => elsewhere.count('POST /session/:id/abort') === index + 1);
      await until('the pause', () => clock.due(pauseMs) === 1);
      await clock.advance(pauseMs);
    }
    await until('the last abort', () => way.requests.length === 4);
    const targets = new Set(way.requests.map(({ target }) => target));
    expect(targets.size).toBe(1);
    fake.emit('session.idle', { sessionID: [...targets][0]?.split('/')[2] });
    expect(await proving).toBe(true);
  });

  test('fails for two similar processes at the deadline', async () => {
    const [one, other] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    const clock = new ManualClock();
    const proving = isSameByAbort(via(one), via(other), { clock, deadlineMs: 60_000 }, signal);
    await until('the abort', () => other.count('POST /session/:id/abort') === 1);
    // What the other process does is not heard here, and other sessions’ ends are not ours.
    one.emit('session.idle', { sessionID: 'ses_another' });
    one.emit('session.status', { sessionID: 'ses_another', status: { type: 'idle' } });
    await clock.advance(60_000);
    expect(await proving).toBe(false);
    await until('the stream to be closed', () => one.openStreams === 0);
  });

  test.each([
    ['an end that is gone', (fake: FakeOpencode) => fake.close()],
    [
      'an end that answers with a web page',
      (fake: FakeOpencode) => fake.override('GET /global/event', { kind: 'html' }),
    ],
    [
      'a stream that ends',
      (fake: FakeOpencode) =>
        fake.override('GET /global/event', {
          kind: 'answer',
          headers: { 'content-type': 'text/event-stream' },
          body: '',
        }),
    ],
  ])('fails for %s', async (_, spoil: (fake: FakeOpencode) => unknown) => {
    const fake = await fakeOpencode();
    const tunnel = await tunnelTo(fake);
    await Promise.resolve(spoil(fake));
    expect(await isSameByAbort(via(fake), via(tunnel), deps, signal)).toBe(false);
  });

  test('ends when its signal aborts', async () => {
    const [one, other] = await Promise.all([fakeOpencode(), fakeOpencode()]);
    const controller = new AbortController();
    const clock = new ManualClock();
    const proving = isSameByAbort(via(one), via(other), { clock, deadlineMs: 60_000 }, controller.signal);
    await until('the abort', () => other.count('POST /session/:id/abort') === 1);
    controller.abort();
    expect(await proving).toBe(false);
    expect(clock.due()).toBe(0);
  });
});

describe('the prover', () => {
  interface Tried {
    readonly pair: string;
    readonly answer: Deferred<boolean>;
  }

  function rig() {
    const clock = new ManualClock();
    const tried: Tried[] = [];
    let proofs = 0;
    const looks: string[] = [];
    const prover = new Prover({
      clock,
      isSame: (_, listen, abort, signal) => {
        const answer = deferred<boolean>();
        signal.addEventListener('abort', () => answer.resolve(false), { once: true });
        tried.push({ pair: `${listen.endpoint.url}<${abort.endpoint.url}`, answer });
        return answer.promise;
      },
      probe: (keys) => Promise.resolve(looks.push(keys.join(' '))),
      onSettled: () => (proofs += 1),
    });
    closers.push(() => prover.close());
    return {
      prover,
      clock,
      tried,
      looks,
      proofs: () => proofs,
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

  test('keeps a proof until an end goes unhealthy, and then as a former one', async () => {
    const { prover, tried, answer, proofs } = rig();
    prover.consider([pair('a', 'b')]);
    expect(tried.map((one) => one.pair)).toEqual(['a<b']);
    await answer(0, true);
    expect(proofs()).toBe(1);
    expect(prover.proofs()).toEqual({ proven: [['a', 'b']], former: [] });
    prover.consider([pair('a', 'b')]);
    expect(tried).toHaveLength(1);
    prover.unhealthy('b');
    expect(prover.proofs()).toEqual({ proven: [], former: [['a', 'b']] });
  });

  test('drops a former proof when both ends are healthy again', async () => {
    const { prover, tried, answer } = rig();
    prover.consider([pair('a', 'b')]);
    await answer(0, true);
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
      const made = rig();
      made.prover.consider([pair('a', 'b'), pair('a', 'c')]);
      await made.answer(0, true);
      await made.answer(1, true);
      made.prover.unhealthy('a');
      made.prover.healthy('a', () => true);
      return made;
    }

    test('is held back until any pair proves it', async () => {
      const { prover, answer, proofs } = await back();
      expect([...prover.returning()]).toEqual(['a']);
      prover.consider([pair('a', 'b'), pair('a', 'c')]);
      expect([...prover.returning()]).toEqual(['a']);
      await answer(2, true);
      expect([...prover.returning()]).toEqual([]);
      expect(proofs()).toBe(3);
    });

    test('is listed if the proof fails and it still answers', async () => {
      const { prover, answer, proofs, looks } = await back();
      prover.consider([pair('a', 'b'), pair('a', 'c')]);
      await answer(2, false);
      expect([[...prover.returning()], proofs()]).toEqual([['a'], 3]);
      await answer(3, false);
      expect([[...prover.returning()], proofs()]).toEqual([[], 4]);
      expect(looks).toEqual(['a b', 'a c']);
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
    const { prover, answer } = rig();
    prover.consider([pair('a', 'b')]);
    await answer(0, true);
    prover.forget('a');
    expect(prover.proofs()).toEqual({ proven: [], former: [] });
  });

  test('lists the newest former proof first', async () => {
    const { prover, answer } = rig();
    prover.consider([pair('a', 'b'), pair('a', 'c')]);
    await answer(0, true);
    await answer(1, true);
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
