import { expect } from 'vitest';

import { until } from '../../rig/wait.ts';
import { restingSession, SESSION_LINK } from './scenes.ts';
import { test } from './stage.ts';

const SENT = { body: { session: 'ses_pay', text: 'sent' } };

test('Ctrl+Enter sends a message, and Enter alone adds a new line', async ({ page, api }) => {
  api.setSession('ses_pay', restingSession());
  api.answer('send', () => SENT);
  await page.open(SESSION_LINK, '.composer');
  const box = page.messageBox;
  await box.focus();
  await page.keyboard.type('Also');
  await page.keyboard.press('Enter');
  await page.keyboard.type('the docs');
  await page.keyboard.press('Control+Enter');
  expect(await api.posted('send')).toEqual({
    instance: 'desk-shop',
    session: 'ses_pay',
    message: 'Also\nthe docs',
    requestId: expect.stringMatching(/^[0-9a-f]{32}$/),
  });
  await until('an empty box', async () => (await box.inputValue()) === '');
});

test('a refused message stays in the box, and keeps its request id when it is sent again', async ({ page, api }) => {
  api.setSession('ses_pay', restingSession());
  api.answer('send', () => ({ status: 503, body: { error: 'desk-shop does not answer; try again' } }));
  await page.open(SESSION_LINK, '.composer');
  const box = page.messageBox;
  const send = page.button('Send');
  await box.fill('Also the docs');
  await send.click();
  await page.getByText('Not sent. desk-shop does not answer; try again').waitFor();
  await page.focusIsOn('button[type=submit]');
  expect(await box.inputValue()).toBe('Also the docs');
  await page.reload();
  await page.locator('.composer').waitFor();
  expect(await box.inputValue()).toBe('Also the docs');
  await send.click();
  await page.getByText(/^Not sent/).waitFor();
  api.answer('send', () => SENT);
  await send.click();
  const [, second, third] = [await api.posted('send', 1), await api.posted('send', 2), await api.posted('send', 3)];
  expect(third['requestId']).toBe(second['requestId']);
  await until('an empty box', async () => (await box.inputValue()) === '');
});

test('no message can be sent while a session works; the typed text can be sent once it is idle', async ({
  page,
  api,
}) => {
  await page.openSession([], '.composer');
  const send = page.button('Send');
  await page.getByText('It is working: send when it is done, or stop it first.').waitFor();
  await page.messageBox.fill('Also the docs');
  await page.keyboard.press('Control+Enter');
  expect(await send.isEnabled()).toBe(false);
  api.push('ses_pay', { kind: 'state', state: 'idle' });
  await until('a button that sends', () => send.isEnabled());
  await page.messageBox.fill('Also the docs, please');
  await send.click();
  expect(await api.posted('send')).toMatchObject({ message: 'Also the docs, please' });
});

test('typed text stays in the box if the node is unreachable', async ({ page, api }) => {
  api.setSession('ses_pay', restingSession());
  await page.open(SESSION_LINK, '.composer');
  await page.messageBox.fill('Also the docs');
  await api.stop();
  await page.button('Send').click();
  await page.getByText('Not sent. The node does not answer. Nothing is lost: try again.').waitFor();
  expect(await page.messageBox.inputValue()).toBe('Also the docs');
});

test('the first message opens a new session', async ({ page, api }) => {
  api.answer('send', () => SENT);
  await page.open('', '.row');
  await page.getByRole('link', { name: 'desk-dotfiles' }).click();
  await page.focusIsOn('textarea');
  await page.keyboard.type('Tidy up');
  await page.keyboard.press('Control+Enter');
  expect(await api.posted('send')).toMatchObject({ instance: 'desk-dotfiles', session: null, message: 'Tidy up' });
  await page.locator('.message').first().waitFor();
  expect(page.url()).toContain('#/s/desk-dotfiles/ses_pay');
});
