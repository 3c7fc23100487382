import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

import { Namespaces, processesOf, removeLeftovers } from '../rig/tailnet-namespaces.ts';
import { needTailnet } from '../rig/tailnet.ts';
import { until } from '../rig/wait.ts';

const run = promisify(execFile);
const PROGRAM = fileURLToPath(new URL('programs/open-namespaces.ts', import.meta.url));

async function namespaces(): Promise<string> {
  return (await run('ip', ['netns', 'list'])).stdout;
}

it('the next run removes the namespaces of a killed one and none of a live one', async (context) => {
  needTailnet(context);
  const mine = await Namespaces.open(77);
  const killed = spawn(process.execPath, ['--import', 'tsx', PROGRAM], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(killed.stdout, 'data')) as [Buffer];
  const left = line.toString().trim();
  await until('its process to be in it', async () => (await processesOf(left)).length === 1);
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
