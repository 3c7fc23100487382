import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { boundedSection, DOCTOR_LIMIT_MS, examine } from '../../src/doctor/examine.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { World } from '../fleet/world.ts';
import { startFakeLocalApi } from '../rig/fake/fake-local-api.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { processesIn } from '../rig/processes.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { examination, lineOf } from './stage.ts';

const never = new Promise<never>(() => {});

test('a check that hangs is reported after its time limit and hides no other check', async () => {
  await using temp = tempDir('opencode-mcp-doctor');
  await using tailscaled = await startFakeLocalApi();
  tailscaled.answers.set('status', () => {});
  await using world = new World();
  // The source's scan never ends.
  world.source.answer = () => never;
  world.fleet.start();
  const ssh = join(temp.path, 'ssh');
  await writeFile(ssh, `#!/bin/sh\nTMPDIR=${temp.tmp} exec sleep 1000\n`);
  await chmod(ssh, 0o755);
  const env = { TAILSCALE_SOCKET: tailscaled.socketPath, RELAY_SSH_CMD: `${ssh} you@relay` };
  const clock = new ManualClock();
  const examining = examine(await examination(temp.path, env, world.fleet, clock));
  await until('both ssh processes to run', async () => (await processesIn(temp.tmp)).length >= 2);
  await clock.advance(DOCTOR_LIMIT_MS - 1);
  const report = await examining;
  // The examination waits until its processes have ended.
  expect(await processesIn(temp.tmp)).toEqual([]);
  expect(lineOf(report, 'test', /^pending: its first scan has not ended$/)?.verdict).toBe('warn');
  expect(lineOf(report, 'tailscaled', /no complete answer within 5000 ms/)?.verdict).toBe('broken');
  expect(lineOf(report, 'ssh', /^no answer within 12 s$/)?.verdict).toBe('broken');
  expect(lineOf(report, 'state folder', /not created yet/)?.verdict).toBe('ok');
});

test('an aborted examination ends', async () => {
  await using temp = tempDir('opencode-mcp-doctor');
  await using world = new World();
  world.source.answer = () => never;
  world.fleet.start();
  const ending = new AbortController();
  const input = { ...(await examination(temp.path, {}, world.fleet, new ManualClock())), signal: ending.signal };
  const examining = examine(input);
  ending.abort(new Error('called off'));
  await expect(examining).rejects.toThrow('called off');
});

test('a section that takes too long is reported as broken', async () => {
  const clock = leapingClock();
  const signal = new AbortController().signal;
  const section = await boundedSection({ id: 'state', title: 'State' }, { clock, signal }, () => never);
  expect(section.checks).toEqual([
    { verdict: 'broken', subject: 'State', text: 'could not be checked: no answer within 20 s' },
  ]);
});
