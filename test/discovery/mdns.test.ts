import { networkInterfaces } from 'node:os';
import { expect } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { createMdnsSource } from '../../src/discovery/mdns/mdns.ts';
import { silentLogger } from '../../src/base/log.ts';
import { Publisher } from '../../src/mdns/publisher.ts';
import { freePort } from '../rig/ports.ts';
import { conformance, type HintingStage } from './conformance.ts';

/** The loopback interface: multicast on it does not leave the machine. */
const LOOPBACK =
  Object.entries(networkInterfaces()).find(([, addresses]) => addresses?.some(({ internal }) => internal))?.[0] ?? 'lo';

const SYSTEM = { clock: systemClock, logger: silentLogger };

async function publish(port: number, id: string, listensOn: number): Promise<Publisher> {
  const instance = { id, name: 'a', hostname: 'h', directory: '/d' };
  const publisher = new Publisher({ ...SYSTEM, interfaces: [LOOPBACK], port, instance, listensOn });
  await publisher.open();
  expect(publisher.problem).toBeUndefined();
  return publisher;
}

async function stage(): Promise<HintingStage> {
  const port = await freePort();
  const published = [await publish(port, 'one', 5001), await publish(port, 'two', 5002)];
  const source = createMdnsSource({ interfaces: [LOOPBACK] }, { ...SYSTEM, port });
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
    const source = createMdnsSource({ interfaces: [] }, { ...SYSTEM, port: 1 });
    return { source, keys: [], [Symbol.asyncDispose]: async () => {} };
  },
});
