import { networkInterfaces } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { createMdnsSource } from '../../src/discovery/mdns/mdns.ts';
import { silentLogger } from '../../src/base/log.ts';
import { Publisher } from '../../src/mdns/publisher.ts';
import { freePort } from '../rig/ports.ts';
import { conformance, type HintingStage } from './conformance.ts';

/** Nothing leaves the machine: multicast on loopback, and on a free port. */
const LOOPBACK =
  Object.entries(networkInterfaces()).find(([, found]) => found?.some(({ internal }) => internal))?.[0] ?? 'lo';
const never = new AbortController().signal;

async function publish(port: number, id: string, listensOn: number): Promise<Publisher> {
  const common = { interfaces: [LOOPBACK], clock: systemClock, logger: silentLogger };
  const publisher = new Publisher({
    ...common,
    port,
    instance: { id, name: 'a', hostname: 'h', directory: '/d' },
    listensOn,
  });
  await publisher.open();
  expect(publisher.problem).toBeUndefined();
  return publisher;
}

async function stage(): Promise<HintingStage> {
  const port = await freePort();
  const published = [await publish(port, 'one', 5001), await publish(port, 'two', 5002)];
  const source = createMdnsSource({ interfaces: [LOOPBACK] }, { clock: systemClock, logger: silentLogger, port });
  return {
    source,
    keys: ['connected/127.0.0.1/5001', 'connected/127.0.0.1/5002'],
    change: async () => void published.push(await publish(port, 'three', 5003)),
    [Symbol.asyncDispose]: async () => {
      await source.close();
      await Promise.all(published.map((one) => one.close()));
    },
  };
}

conformance({
  name: 'mdns',
  working: stage,
  hinting: stage,
  unavailable: async () => {
    const source = createMdnsSource({ interfaces: [] }, { clock: systemClock, logger: silentLogger, port: 1 });
    return { source, keys: [], [Symbol.asyncDispose]: async () => {} };
  },
});

describe('the source mdns', () => {
  const open: AsyncDisposable[] = [];
  afterEach(async () => {
    for (const one of open.splice(0)) await one[Symbol.asyncDispose]();
  });

  it("returns an instance's claims and address", async () => {
    const made = await stage();
    open.push(made);
    const { candidates } = await made.source.scan(never);
    expect(candidates.find(({ claims }) => claims.id === 'two')).toMatchObject({
      source: 'mdns',
      key: 'connected/127.0.0.1/5002',
      endpoint: { url: 'http://127.0.0.1:5002', route: 'lan' },
      claims: { id: 'two', name: 'a', hostname: 'h', directory: '/d', localPort: 5002 },
      trust: { level: 'trusted' },
    });
  });
});
