import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { announce } from '../rig/announce.ts';
import { startConnected } from '../rig/programs/connected-child.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { signalProcess } from '../rig/network/sshd.ts';
import { disposeAtEnd, lineOf, openDoctorStage, todoThat } from './stage.ts';

test.skipIf(isMissing(PINNED_OPENCODE))('reports a real opencode that needs a password, and that hangs', async () => {
  const stage = disposeAtEnd(await openDoctorStage());
  const wrapper = disposeAtEnd(await startConnected({ registry: stage.registry.path }));
  const { name, port } = await wrapper.registered();
  // The wrapper and the doctor belong to the same person.
  for (const key of ['HOME', 'XDG_STATE_HOME']) if (wrapper.env[key] !== undefined) stage.env[key] = wrapper.env[key];
  expect(await stage.type('opencode-mcp init --yes')).toMatchObject({ code: 0 });
  const well = await stage.doctor();
  announce({ describe: () => `opencode-connected (pid ${wrapper.pid}, port ${port})` });
  expect(well.report.todo).toEqual([]);
  expect(lineOf(well.report, name, /^idle/)?.details?.[0]?.endpoint).toMatchObject({
    state: 'healthy',
    dialect: 'opencode-1',
    password: 'sent',
    password_from: expect.stringContaining('.credentials'),
  });
  expect(JSON.stringify(well.report)).not.toContain(await wrapper.password());

  const file = join(wrapper.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp/connected');
  const { opencodePid } = JSON.parse(await readFile(join(file, `${(await wrapper.registered()).id}.json`), 'utf8'));
  signalProcess(opencodePid, 'SIGSTOP');
  onTestFinished(() => signalProcess(opencodePid, 'SIGCONT'));
  stage.env['HEALTH_CHECK_TIMEOUT_MS'] = '1000';
  const before = await stage.doctor();
  expect(before.code).toBe(1);
  expect(lineOf(before.report, name, /^offline/)?.verdict).toBe('broken');
  expect(todoThat(/something listens there and does not answer: check that opencode/, before.report)).toBeDefined();

  signalProcess(opencodePid, 'SIGCONT');
  stage.env['HEALTH_CHECK_TIMEOUT_MS'] = '10000';
  const after = await stage.doctor();
  expect(after.report.todo).toEqual([]);
  expect(after.code).toBe(0);
});
