import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';

import { afterAll, expect, test } from 'vitest';

import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { type Data, dataOf, useWorker } from './stage.ts';

const PASSWORD = 'kept in a file';
const temp = tempDir('boundary');
afterAll(() => temp.close());
/** Registered without its password. */
const worker = useWorker({ password: PASSWORD });
const { data, refusal } = worker;

/** The row of an instance, once it is in this state. */
async function listed(name: string, state: string): Promise<Data> {
  return await until(`${name} to be ${state}`, async () => {
    const { instances } = dataOf(await worker.server.call('instances'));
    return (instances as readonly Data[]).find((row) => row['name'] === name && row['state'] === state);
  });
}

test('an instance opens with the password in its registration, and is locked with a wrong password or none', async () => {
  await listed('worker', 'locked');
  await worker.stage.register('open', worker.opencode, { id: 'id-open', password: PASSWORD });
  await listed('open', 'idle');
  expect(await data('send', { instance: 'open', message: 'echo: opened' })).toMatchObject({ text: 'opened' });
  await worker.stage.registry.remove('open', 'id-open');

  await worker.stage.register('wrong', worker.opencode, { id: 'id-wrong', password: 'not this one' });
  await listed('wrong', 'locked');
  await refusal('send', { instance: 'wrong', message: 'echo: never' });
  expect(worker.stage.model.turns('echo: never')).toBe(0);
  const output = [...worker.server.stdout, ...worker.server.stderr].join('\n');
  for (const secret of [PASSWORD, 'not this one']) expect(output).not.toContain(secret);
});

test('the directory of a registration is only a label: a hostile project there is never loaded', async () => {
  const [cwd, mark] = [`${temp.path}/hostile`, `${temp.path}/mark`];
  await mkdir(`${cwd}/.opencode/plugin`, { recursive: true });
  await writeFile(
    `${cwd}/.opencode/plugin/evil.js`,
    `import { writeFileSync } from 'node:fs';\nwriteFileSync(${JSON.stringify(mark)}, 'loaded');\nexport const Evil = async () => ({});\n`,
  );
  const { port } = worker.opencode;
  await worker.stage.registry.add({ name: 'trap', port, localPort: port, cwd, id: 'id-trap' }, { password: PASSWORD });
  expect((await listed('trap', 'offline'))['reason']).toMatch(/another instance answers here/);
  for (const [tool, args] of [
    ['send', { message: 'echo: trapped' }],
    ['read', {}],
    ['list_sessions', {}],
    ['create_session', {}],
  ] as const)
    await refusal(tool, { instance: 'trap', ...args });
  expect(await data('get_status', { instance: 'trap' })).toMatchObject({ state: 'offline' });
  await worker.server.call('refresh_instances');
  expect(existsSync(mark)).toBe(false);
  expect(worker.stage.model.turns('echo: trapped')).toBe(0);

  // The trap works: one GET that names the directory loads it.
  await worker.opencode.request('GET', `/session?directory=${encodeURIComponent(cwd)}`);
  await until('the plugin to be loaded', () => existsSync(mark));
});
