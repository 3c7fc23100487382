import { expect, test } from 'vitest';

import { until } from '../../rig/wait.ts';
import { PERMISSION, paySession } from './scenes.ts';
import { browserSuite, posted } from './stage.ts';

const open = browserSuite();

const DEEP_LINK = '#/s/desk-shop/ses_pay/per_1';
const LINK = '#/s/desk-shop/ses_pay';
const SECOND = { ...PERMISSION, id: 'per_2', command: 'rm -rf dist', patterns: ['rm -rf dist'] };

test('a permission is allowed once', async () => {
  await using stage = await open();
  const { page, api } = stage;
  await stage.open(DEEP_LINK, '.ask');
  await page.getByRole('button', { name: 'Allow once' }).click();
  expect(await posted(api, 'respond')).toEqual({
    instance: 'desk-shop',
    session: 'ses_pay',
    request: 'per_1',
    reply: 'once',
  });
  await page.locator('.result').getByText('Allowed once.').waitFor();
  await stage.focusIsOn('.result');
  api.push('ses_pay', { kind: 'asks', asks: [] }, { kind: 'state', state: 'busy' });
  await page.locator('.status').getByText('working').waitFor();
  expect(await page.locator('.ask').innerText()).not.toContain('elsewhere');
});

test('a permission is rejected with a reason; Enter in that field never allows', async () => {
  await using stage = await open();
  const { page, api } = stage;
  await stage.open(DEEP_LINK, '.ask');
  await page.getByLabel('Why not (optional)').fill('Tag it first');
  await page.getByLabel('Why not (optional)').press('Enter');
  expect(await posted(api, 'respond')).toMatchObject({ request: 'per_1', reply: 'reject', message: 'Tag it first' });
  await page.locator('.result').getByText('Rejected.').waitFor();
});

test('an edit shows its diff; one that cannot be shown as a whole can only be rejected', async () => {
  await using stage = await open();
  const { page, api } = stage;
  const edit = {
    ...PERMISSION,
    permission: 'edit',
    command: undefined,
    patterns: ['src/a.ts'],
    diff: '@@ -1 +1 @@\n-old\n+new',
  };
  api.setSession('ses_pay', paySession([{ ...edit, canAllow: false }]));
  await stage.open(DEEP_LINK, '.ask');
  expect(await page.locator('.command').innerText()).toBe('src/a.ts');
  expect(await page.locator('.ask ins.line').innerText()).toBe('+new');
  await page.getByText(/it can only be rejected here/).waitFor();
  expect(await page.getByRole('button', { name: 'Allow once' }).count()).toBe(0);
  await page.getByRole('button', { name: 'Reject' }).click();
  expect(await posted(api, 'respond')).toMatchObject({ request: 'per_1', reply: 'reject' });
});

test('a refusal leaves the request open, with the reason', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.answer('respond', () => ({ status: 502, body: { error: 'cannot reach desk; try again' } }));
  await stage.open(DEEP_LINK, '.ask');
  await page.getByRole('button', { name: 'Allow once' }).click();
  await page.locator('.ask').getByText('cannot reach desk; try again').waitFor();
  api.answer('respond', () => ({ body: { done: true, text: 'done' } }));
  await page.getByRole('button', { name: 'Allow once' }).click();
  await page.locator('.result').getByText('Allowed once.').waitFor();
});

test('a request settled elsewhere is shown immediately, and no open button moves', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([PERMISSION, SECOND]));
  await stage.open(LINK, '.ask');
  const second = page.getByRole('region', { name: 'Permission: bash' }).nth(1);
  const allow = second.getByRole('button', { name: 'Allow once' });
  await until('a card that can be pressed', () => allow.isEnabled());
  await allow.focus();
  const before = await second.boundingBox();
  api.push('ses_pay', { kind: 'asks', asks: [SECOND] });
  await page.getByText('Settled elsewhere.').first().waitFor();
  expect(await second.boundingBox()).toEqual(before);
  expect(await page.getByRole('button', { name: 'Allow once' }).count()).toBe(1);
  await stage.focusIsOn('button.primary');
  // Pressed at the same moment as on another device, which is no error.
  api.answer('respond', () => ({ body: { done: false, gone: true, text: 'It was allowed in the terminal.' } }));
  await allow.click();
  await page.locator('.result').getByText('Settled elsewhere. It was allowed in the terminal.').waitFor();
  const errors = `[...document.querySelectorAll('.error')].filter((one) => one.checkVisibility()).map((one) => one.textContent)`;
  expect(await page.evaluate<string[]>(errors)).toEqual([]);
});

test('a new card cannot be pressed by a finger that was already moving', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([]));
  await stage.open(LINK, '.message');
  await page.evaluate(`new MutationObserver((_, observer) => {
    const button = document.querySelector('.ask button.primary');
    if (button === null) return;
    observer.disconnect();
    button.click();
    window.early = true;
  }).observe(document.body, { childList: true, subtree: true })`);
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] });
  await until('a press at once', () => page.evaluate<boolean>('window.early === true'));
  await page.getByRole('button', { name: 'Allow once' }).click();
  await posted(api, 'respond');
  expect(api.posts).toHaveLength(1);
});

test('a link to a request that is settled already opens its session and says so', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([]));
  await stage.open(DEEP_LINK, '.message');
  await page.locator('.result').getByText('The request of this link is settled already.').waitFor();
});

test('a request that is listed again after it seemed settled can be answered', async () => {
  await using stage = await open();
  const { page, api } = stage;
  await stage.open(DEEP_LINK, '.ask');
  api.push('ses_pay', { kind: 'asks', asks: [] });
  await page.locator('.result').getByText('Settled elsewhere.').waitFor();
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] });
  await page.getByRole('button', { name: 'Allow once' }).click();
  await page.locator('.result').getByText('Allowed once.').waitFor();
  // The list may be older than the answer.
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] }, { kind: 'state', state: 'retrying' });
  await page.locator('.status').getByText('retrying').waitFor();
  expect(await page.getByRole('button', { name: 'Allow once' }).count()).toBe(0);
});
