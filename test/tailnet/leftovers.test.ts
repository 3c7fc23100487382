import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

import { Namespaces, processesOf, removeLeftovers } from '../rig/network/tailnet-namespaces.ts';
import { needTailnet } from '../rig/network/tailnet.ts';
import { until } from '../rig/wait.ts';

const run = promisify(execFile);

/** Creates a namespace with a process in it, prints its name, and waits to be killed. */
const SCRIPT = `
  import { spawn } from 'node:child_process';
  import { Namespaces } from '../rig/network/tailnet-namespaces.ts';
  const { hub } = await Namespaces.open(1);
  spawn('ip', ['netns', 'exec', hub, 'sleep', 'infinity'], { stdio: 'ignore' }).once('spawn', () => console.log(hub));
  setInterval(() => {}, 60_000);`;

async function namespaces(): Promise<string> {
  return (await run('ip', ['netns', 'list'])).stdout;
}

it('removeLeftovers removes the namespaces of a killed run and keeps those of a live run', async (context) => {
  needTailnet(context);
  const mine = await Namespaces.open(77);
  const killed = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', SCRIPT], {
    cwd: import.meta.dirname,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(killed.stdout, 'data')) as [Buffer];
  const left = line.toString().trim();
  await until('a process in its namespace', async () => (await processesOf(left)).length === 1);
  killed.kill('SIGKILL');
  await once(killed, 'exit');
  expect(await namespaces()).toContain(left);
  await until('the leftovers to be gone', async () => {
    await removeLeftovers();
    return !(await namespaces()).includes(left);
  });
  expect(await namespaces()).toContain(mine.hub);
  await mine.close();
  expect(await namespaces()).not.toContain(mine.hub);
});
