import { setTimeout as delay } from 'node:timers/promises';

import { atMost, type Figure, figure } from '../figure.ts';
import { interleave } from '../interleave.ts';
import type { BareArrival } from '../programs/bare-stream.ts';
import type { Stage } from '../stage.ts';
import { differences } from '../statistics.ts';

const GOAL_MS = 10;
const NS_PER_MS = 1e6;
/** A model's first words take longer; by then both readers are idle. */
const REST_MS = 50;

/** From sending a turn's first text to its arrival, as a progress notification of `send` and at a bare reader of the stream. */
export async function firstTokenFigures(stage: Stage, pairs: number): Promise<readonly Figure[]> {
  await using fleet = await stage.startFleet({ live: 1 });
  await using server = await stage.startServer({ registry: await stage.registryOf(fleet.ports) });
  await server.call('instances');
  const [port = 0] = fleet.ports.live;
  await using bare = await stage.startBareStream(
    `http://127.0.0.1:${port}/event?directory=${encodeURIComponent('/home/user/project-0')}`,
  );
  const { ours, theirs } = await interleave(pairs, {
    theirs: async () => {
      await bare.ask({ order: 'open' });
      const arriving = bare.ask<BareArrival>({ order: 'wait' });
      await delay(REST_MS);
      const { atNs } = await fleet.token('Hello');
      const arrived = await arriving;
      await bare.ask({ order: 'close' });
      return msBetween(BigInt(atNs), BigInt(arrived.atNs));
    },
    ours: async () => {
      let arrive: (atNs: bigint) => void = () => {};
      const arriving = new Promise<bigint>((resolve) => (arrive = resolve));
      const sending = server.call('send', { instance: 'project-0', message: 'Hi' }, (text, atNs) => {
        if (text !== '') arrive(atNs);
      });
      await fleet.prompted();
      await delay(REST_MS);
      const { atNs } = await fleet.token('Hello');
      const arrivedNs = await arriving;
      await fleet.finish('Hello.');
      await sending;
      return msBetween(BigInt(atNs), arrivedNs);
    },
  });
  return [
    figure('first streamed token, bare reader', 'ms', theirs),
    figure('first streamed token, send', 'ms', ours),
    figure('first streamed token, send − bare', 'ms', differences(ours, theirs), { goal: atMost(GOAL_MS) }),
  ];
}

function msBetween(fromNs: bigint, toNs: bigint): number {
  return Number(toNs - fromNs) / NS_PER_MS;
}
