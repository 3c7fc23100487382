import { expect, onTestFinished, test } from 'vitest';

import { openDashboard } from '../../../src/attach/dashboard.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { runService, SELF } from '../../node/stage.ts';
import { MemoryLocalApi, tailnetNode } from '../../rig/memory-local-api.ts';
import { type FakeOpencode2, startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { openRegistry } from '../../rig/registry.ts';
import { testRuntime } from '../../rig/runtime.ts';
import { tempDir } from '../../rig/temp.ts';
import { browserSuite } from './stage.ts';

const open = browserSuite();

const DIRECTORY = '/home/ada/shop';

/** Address of a dashboard over the real page server, which shows a fake OpenCode 2.1 with one session. */
async function dashboardOf(fake: FakeOpencode2): Promise<string> {
  const temp = tempDir('page-form');
  onTestFinished(() => temp.close());
  const registry = await openRegistry(`${temp.path}/registry`);
  await fake.register(temp.path);
  fake.addSession({ directory: DIRECTORY, title: 'Deploy the shop' });
  const api = new MemoryLocalApi(tailnetNode({ id: 'self', addresses: [SELF] }));
  const { service, instances } = await runService(registry.path, api, { opencodeStateDir: temp.path });
  onTestFinished(() => service.close());
  const dashboard = await openDashboard({
    runtime: testRuntime(instances.fleet, `${temp.path}/requests`),
    caller: { name: 'ada', role: 'drive' },
    clock: systemClock,
    logger: silentLogger,
    record: () => {},
    isOwnPeer: () => Promise.resolve(true),
  });
  onTestFinished(() => dashboard.close());
  return dashboard.url;
}

test('a form of OpenCode 2 is filled in, corrected and answered in the types of its fields', async () => {
  await using fake = await startFakeOpencode2({ home: '/home/ada', directories: { [DIRECTORY]: {} } });
  const options = ['Europe', 'America'].map((label) => ({ value: label.slice(0, 2).toLowerCase(), label }));
  fake.script('deploy it', [
    {
      kind: 'form',
      title: 'Deploy',
      fields: [
        { key: 'where', type: 'string', title: 'Where', required: true, options },
        { key: 'count', type: 'integer', title: 'How many', required: true, minimum: 1 },
        { key: 'dry', type: 'boolean', title: 'Dry run', required: true },
        { key: 'parts', type: 'multiselect', title: 'Parts', options },
        { key: 'note', type: 'string', title: 'Note' },
      ],
    },
    { kind: 'report', tool: 'question' },
  ]);
  await using stage = await open();
  const { page } = stage;
  await page.goto(await dashboardOf(fake));
  await page.locator('.row a').first().click();
  await page.getByRole('textbox', { name: 'Message' }).fill('deploy it');
  await page.getByRole('button', { name: 'Send' }).click();
  const field = (name: string) => page.getByRole('group', { name });
  await field('Where').getByRole('radio', { name: 'America' }).check();
  await field('How many').getByRole('textbox').fill('many');
  await field('Dry run').getByRole('radio', { name: 'No' }).check();
  for (const name of ['Europe', 'America']) await field('Parts').getByRole('checkbox', { name }).check();
  await page.getByRole('button', { name: 'Answer' }).click();
  await page.getByText(/"How many", takes a whole number, not "many"/).waitFor();
  await field('How many').getByRole('textbox').fill('3');
  await page.getByRole('button', { name: 'Answer' }).click();
  await page.locator('.result').getByText('Answered.').waitFor();
  const replies = fake.requests.filter(({ path }) => path.endsWith('/reply'));
  expect(replies.map(({ body }) => body)).toEqual([
    { answer: { where: 'am', count: 3, dry: false, parts: ['eu', 'am'] } },
  ]);
  await page.getByText(/question returned/).waitFor();
  await page.locator('.status').getByText('done').waitFor();
  expect(stage.faults).toEqual([]);
});
