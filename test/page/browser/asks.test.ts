import { expect, onTestFinished } from 'vitest';

import { openDashboard } from '../../../src/attach/dashboard.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { runService, SELF } from '../../node/stage.ts';
import { MemoryLocalApi, tailnetNode } from '../../rig/fake/memory-local-api.ts';
import { type FakeOpencode2, startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { openRegistry } from '../../rig/registry.ts';
import { testRuntime } from '../../rig/runtime.ts';
import { tempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';
import { PERMISSION, paySession, QUESTION, REQUEST_LINK } from './scenes.ts';
import { test } from './stage.ts';

const SECOND = { ...PERMISSION, id: 'per_2', command: 'rm -rf dist', patterns: ['rm -rf dist'] };

test('a permission stays open with the reason if the answer fails, and can then be allowed once', async ({
  page,
  api,
}) => {
  api.answer('respond', () => ({ status: 502, body: { error: 'cannot reach desk; try again' } }));
  await page.open(REQUEST_LINK, '.ask');
  await page.button('Allow once').click();
  await page.locator('.ask').getByText('cannot reach desk; try again').waitFor();
  api.answer('respond', () => ({ body: { done: true, text: 'done' } }));
  await page.button('Allow once').click();
  expect(await api.posted('respond', 2)).toEqual({
    instance: 'desk-shop',
    session: 'ses_pay',
    request: 'per_1',
    reply: 'once',
  });
  await page.locator('.result').getByText('Allowed once.').waitFor();
  await page.focusIsOn('.result');
  api.push('ses_pay', { kind: 'asks', asks: [] }, { kind: 'state', state: 'busy' });
  await page.locator('.status').getByText('working').waitFor();
  expect(await page.locator('.ask').innerText()).not.toContain('elsewhere');
});

test('a permission is rejected with a reason, also by Enter in the field of the reason', async ({ page, api }) => {
  await page.open(REQUEST_LINK, '.ask');
  const reason = page.getByLabel('Why not (optional)');
  await reason.fill('Tag it first');
  await reason.press('Enter');
  expect(await api.posted('respond')).toMatchObject({ request: 'per_1', reply: 'reject', message: 'Tag it first' });
  await page.locator('.result').getByText('Rejected.').waitFor();
});

test('an edit shows its diff, and can only be rejected if the diff is incomplete', async ({ page, api }) => {
  const edit = {
    ...PERMISSION,
    permission: 'edit',
    command: undefined,
    patterns: ['src/a.ts'],
    diff: '@@ -1 +1 @@\n-old\n+new',
  };
  api.setSession('ses_pay', paySession([{ ...edit, canAllow: false }]));
  await page.open(REQUEST_LINK, '.ask');
  expect(await page.locator('.command').innerText()).toBe('src/a.ts');
  expect(await page.locator('.ask ins.line').innerText()).toBe('+new');
  await page.getByText(/it can only be rejected here/).waitFor();
  expect(await page.button('Allow once').count()).toBe(0);
  await page.button('Reject').click();
  expect(await api.posted('respond')).toMatchObject({ request: 'per_1', reply: 'reject' });
});

test('a request that is settled elsewhere is shown as settled immediately, and no button of another request moves', async ({
  page,
  api,
}) => {
  await page.openSession([PERMISSION, SECOND], '.ask');
  const second = page.getByRole('region', { name: 'Permission: bash' }).nth(1);
  const allow = second.getByRole('button', { name: 'Allow once' });
  await until('a card that can be pressed', () => allow.isEnabled());
  await allow.focus();
  const before = await second.boundingBox();
  api.push('ses_pay', { kind: 'asks', asks: [SECOND] });
  await page.getByText('Settled elsewhere.').first().waitFor();
  expect(await second.boundingBox()).toEqual(before);
  expect(await page.button('Allow once').count()).toBe(1);
  await page.focusIsOn('button.primary');
  // Pressed at the same moment as on another device, which is no error.
  api.answer('respond', () => ({ body: { done: false, gone: true, text: 'It was allowed in the terminal.' } }));
  await allow.click();
  await page.locator('.result').getByText('Settled elsewhere. It was allowed in the terminal.').waitFor();
  const errors = `[...document.querySelectorAll('.error')].filter((one) => one.checkVisibility()).map((one) => one.textContent)`;
  expect(await page.evaluate<string[]>(errors)).toEqual([]);
});

test('a new request ignores a click in the moment of its appearance', async ({ page, api }) => {
  await page.openSession([], '.message');
  await page.evaluate(`new MutationObserver((_, observer) => {
    const button = document.querySelector('.ask button.primary');
    if (button === null) return;
    observer.disconnect();
    button.click();
    window.early = true;
  }).observe(document.body, { childList: true, subtree: true })`);
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] });
  await until('a press at once', () => page.evaluate<boolean>('window.early === true'));
  await page.button('Allow once').click();
  await api.posted('respond');
  expect(api.posts).toHaveLength(1);
});

test('a link to a settled request opens the session and says that the request is settled', async ({ page, api }) => {
  api.setSession('ses_pay', paySession([]));
  await page.open(REQUEST_LINK, '.message');
  await page.locator('.result').getByText('The request of this link is settled already.').waitFor();
});

test('a request that is listed again after it seemed settled can be answered', async ({ page, api }) => {
  await page.open(REQUEST_LINK, '.ask');
  api.push('ses_pay', { kind: 'asks', asks: [] });
  await page.locator('.result').getByText('Settled elsewhere.').waitFor();
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] });
  await page.button('Allow once').click();
  await page.locator('.result').getByText('Allowed once.').waitFor();
  // The list may be older than the answer.
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] }, { kind: 'state', state: 'retrying' });
  await page.locator('.status').getByText('retrying').waitFor();
  expect(await page.button('Allow once').count()).toBe(0);
});

test('questions take one choice, several choices or a written answer, and each question must be answered', async ({
  page,
  api,
}) => {
  await page.openSession([QUESTION], '.ask');
  const answer = page.button('Answer');
  await page.getByRole('radio', { name: /Redis/ }).check();
  await answer.click();
  await page.getByText('Answer each question first.').waitFor();
  await page.focusIsOn('input[type=checkbox]');
  expect(api.posts).toHaveLength(0);
  await page.getByRole('checkbox', { name: 'Types' }).check();
  await page.getByRole('checkbox', { name: 'Unit tests' }).check();
  await page.getByLabel('Your own answer').fill(' In memory ');
  await answer.click();
  expect(await api.posted('respond')).toEqual({
    instance: 'desk-shop',
    session: 'ses_pay',
    request: 'que_1',
    answers: [['In memory'], ['Types', 'Unit tests']],
  });
  await page.locator('.result').getByText('Answered.').waitFor();
});

test('an unfinished answer survives an update, a choice replaces the answer, and a question can be dismissed', async ({
  page,
  api,
}) => {
  await page.openSession([QUESTION], '.ask');
  const own = page.getByLabel('Your own answer').first();
  await own.fill('In mem');
  api.push('ses_pay', { kind: 'asks', asks: [QUESTION, { ...QUESTION, id: 'que_2' }] });
  const second = page.locator('.ask').nth(1);
  await second.waitFor();
  expect(await own.inputValue()).toBe('In mem');
  await page.focusIsOn('.own input');
  const first = page.locator('.ask').first();
  await first.getByRole('checkbox', { name: 'Lint' }).check();
  await first.getByRole('radio', { name: /Postgres/ }).check();
  await first.getByRole('button', { name: 'Answer' }).click();
  expect(await api.posted('respond')).toMatchObject({ request: 'que_1', answers: [['Postgres'], ['Lint']] });
  await second.getByRole('button', { name: 'Dismiss' }).click();
  expect(await api.posted('respond', 2)).toMatchObject({ request: 'que_2', reply: 'reject' });
  await page.locator('.result').getByText('Dismissed.').waitFor();
});

test('an optional question needs no answer', async ({ page, api }) => {
  const [first, second] = QUESTION['questions'] as object[];
  await page.openSession([{ ...QUESTION, questions: [first, { ...second, optional: true }] }], '.ask');
  await page.getByRole('radio', { name: /Redis/ }).check();
  await page.button('Answer').click();
  expect(await api.posted('respond')).toMatchObject({ answers: [['Redis'], []] });
});

test('a form of OpenCode 2 is filled in, corrected, and answered with values of the types of its fields', async ({
  page,
}) => {
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
  await page.goto(await dashboardOf(fake));
  await page.locator('.row a').first().click();
  await page.messageBox.fill('deploy it');
  await page.button('Send').click();
  const field = (name: string) => page.getByRole('group', { name });
  await field('Where').getByRole('radio', { name: 'America' }).check();
  await field('How many').getByRole('textbox').fill('many');
  await field('Dry run').getByRole('radio', { name: 'No' }).check();
  for (const name of ['Europe', 'America']) await field('Parts').getByRole('checkbox', { name }).check();
  await page.button('Answer').click();
  await page.getByText(/"How many", takes a whole number, not "many"/).waitFor();
  await field('How many').getByRole('textbox').fill('3');
  await page.button('Answer').click();
  await page.locator('.result').getByText('Answered.').waitFor();
  const replies = fake.requests.filter(({ path }) => path.endsWith('/reply'));
  expect(replies.map(({ body }) => body)).toEqual([
    { answer: { where: 'am', count: 3, dry: false, parts: ['eu', 'am'] } },
  ]);
  await page.getByText(/question returned/).waitFor();
  await page.locator('.status').getByText('done').waitFor();
});

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
