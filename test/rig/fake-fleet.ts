/**
 * A fleet of fake opencodes as a process: `node --import tsx test/rig/fake-fleet.ts <count> [options as JSON]`.
 * Prints their ports as one line of JSON when all are up, answers the lines `load` and `reset` on its
 * input with its gauge, and ends when its input ends.
 */
import { createInterface } from 'node:readline';

import { startFakes, type FakesOptions } from './fakes.ts';

const [count = '1', json = '{}'] = process.argv.slice(2);
const options: FakesOptions = JSON.parse(json);
await using fleet = await startFakes(Number(count), options);
print(fleet.all.map(({ port }) => port));
for await (const order of createInterface({ input: process.stdin })) {
  if (order === 'reset') fleet.load.max = fleet.load.current;
  print(fleet.load);
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
