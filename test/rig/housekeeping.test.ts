import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { expect, it } from 'vitest';

import { processesIn } from './processes.ts';
import { until, within } from './wait.ts';

it.each(['SIGKILL', 'SIGTERM'] as const)(
  'a temporary directory and its processes are removed when %s kills their owner',
  async (signal) => {
    const script = `
      import { spawn } from 'node:child_process';
      import { guardProcess } from './orphan-guard.ts';
      import { tempDir } from './temp.ts';
      const temp = tempDir();
      spawn('sleep', ['600'], { detached: true, stdio: 'ignore', env: { PATH: process.env.PATH, TMPDIR: temp.tmp } });
      const unmarked = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' });
      guardProcess(unmarked);
      console.log(temp.path + ' ' + unmarked.pid);
      setInterval(() => {}, 1000);`;
    const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], {
      cwd: import.meta.dirname,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line]: string[] = await within(once(createInterface({ input: owner.stdout }), 'line'), 'the directory');
    const [path = '', pid = ''] = line?.split(' ') ?? [];
    await until('the child to run', async () => (await processesIn(join(path, 'tmp'))).length === 1);
    expect(existsSync(`/proc/${pid}/exe`)).toBe(true);
    owner.kill(signal);
    await until('the directory to be removed', () => !existsSync(path));
    // A killed process stays listed until it has ended.
    await until('the children to end', async () => (await processesIn(join(path, 'tmp'))).length === 0);
    await until('the guarded child to end', () => !existsSync(`/proc/${pid}/exe`));
  },
);
