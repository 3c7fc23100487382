import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { announce } from '../rig/announce.ts';
import { startConnected } from '../rig/programs/connected-child.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { signalProcess } from '../rig/network/sshd.ts';
import { disposeAtEnd, lineOf, openDoctorStage, todoThat } from './stage.ts';

test.skipIf(isMissing(PINNED_OPENCODE))(
  'the doctor reports a real opencode as idle if it needs a password, and as offline while it hangs',
  async () => {
    const stage = disposeAtEnd(await openDoctorStage());
    const wrapper = disposeAtEnd(await startConnected({ registry: stage.registry.path }));
    const { name, port } = await wrapper.registered();
    // The wrapper and the doctor run in the same home.
    for (const key of ['HOME', 'XDG_STATE_HOME']) if (wrapper.env[key] !== undefined) stage.env[key] = wrapper.env[key];
    expect(await stage.type('opencode-mcp init --yes')).toMatchObject({ code: 0 });
    const healthy = await stage.doctor();
    announce({ describe: () => `opencode-connected (pid ${wrapper.pid}, port ${port})` });
    expect(healthy.report.todo).toEqual([]);
    expect(lineOf(healthy.report, name, /^idle/)?.details?.[0]?.endpoint).toMatchObject({
      state: 'healthy',
      dialect: 'opencode-1',
      password: 'sent',
      password_from: expect.stringContaining('.credentials'),
    });
    expect(JSON.stringify(healthy.report)).not.toContain(await wrapper.password());

    const folder = join(wrapper.env['XDG_STATE_HOME'] ?? '', 'opencode-mcp/connected');
    const { opencodePid } = JSON.parse(await readFile(join(folder, `${(await wrapper.registered()).id}.json`), 'utf8'));
    signalProcess(opencodePid, 'SIGSTOP');
    onTestFinished(() => signalProcess(opencodePid, 'SIGCONT'));
    stage.env['HEALTH_CHECK_TIMEOUT_MS'] = '1000';
    const hanging = await stage.doctor();
    expect(hanging.code).toBe(1);
    expect(lineOf(hanging.report, name, /^offline/)?.verdict).toBe('broken');
    expect(todoThat(/something listens there and does not answer: check that opencode/, hanging.report)).toBeDefined();

    signalProcess(opencodePid, 'SIGCONT');
    stage.env['HEALTH_CHECK_TIMEOUT_MS'] = '10000';
    const resumed = await stage.doctor();
    expect(resumed.report.todo).toEqual([]);
    expect(resumed.code).toBe(0);
  },
);
