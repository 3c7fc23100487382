import { expect, test } from 'vitest';

import { until } from '../../rig/wait.ts';
import { paySession, QUESTION, restingSession } from './scenes.ts';
import { browserSuite, posted } from './stage.ts';

const open = browserSuite();

const LINK = '#/s/desk-shop/ses_pay';
const SENT = { body: { session: 'ses_pay', text: 'sent' } };

test('questions: one choice, several choices, an answer of one\u2019s own', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([QUESTION]));
  await stage.open(LINK, '.ask');
  const answer = page.getByRole('button', { name: 'Answer' });
  await page.getByRole('radio', { name: /Redis/ }).check();
  await answer.click();
  await page.getByText('Answer each question first.').waitFor();
  await stage.focusIsOn('input[type=checkbox]');
  expect(api.posts).toHaveLength(0);
  await page.getByRole('checkbox', { name: 'Types' }).check();
  await page.getByRole('checkbox', { name: 'Unit tests' }).check();
  await page.getByLabel('Your own answer').fill(' In memory ');
  await answer.click();
  expect(await posted(api, 'respond')).toEqual({
    instance: 'desk-shop',
    session: 'ses_pay',
    request: 'que_1',
    answers: [['In memory'], ['Types', 'Unit tests']],
  });
  await page.locator('.result').getByText('Answered.').waitFor();
});

test('a choice replaces an own answer, and a question can be dismissed', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([QUESTION, { ...QUESTION, id: 'que_2' }]));
  await stage.open(LINK, '.ask');
  const first = page.locator('.ask').first();
  await first.getByRole('checkbox', { name: 'Lint' }).check();
  await page.getByLabel('Your own answer').first().fill('Elsewhere');
  await first.getByRole('radio', { name: /Postgres/ }).check();
  await first.getByRole('button', { name: 'Answer' }).click();
  expect(await posted(api, 'respond')).toMatchObject({ request: 'que_1', answers: [['Postgres'], ['Lint']] });
  await page.locator('.ask').nth(1).getByRole('button', { name: 'Dismiss' }).click();
  expect(await posted(api, 'respond', 2)).toMatchObject({ request: 'que_2', reply: 'reject' });
  await page.locator('.result').getByText('Dismissed.').waitFor();
});

test('an optional question needs no answer', async () => {
  await using stage = await open();
  const { page, api } = stage;
  const [first, second] = QUESTION['questions'] as object[];
  api.setSession('ses_pay', paySession([{ ...QUESTION, questions: [first, { ...second, optional: true }] }]));
  await stage.open(LINK, '.ask');
  await page.getByRole('radio', { name: /Redis/ }).check();
  await page.getByRole('button', { name: 'Answer' }).click();
  expect(await posted(api, 'respond')).toMatchObject({ answers: [['Redis'], []] });
});

test('a half-given answer survives an update of the session', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([QUESTION]));
  await stage.open(LINK, '.ask');
  await page.getByLabel('Your own answer').fill('In mem');
  api.push('ses_pay', { kind: 'asks', asks: [QUESTION, { ...QUESTION, id: 'que_2' }] });
  await page.locator('.ask').nth(1).waitFor();
  expect(await page.getByLabel('Your own answer').first().inputValue()).toBe('In mem');
  await stage.focusIsOn('.own input');
});

test('a message is sent by Ctrl+Enter, and Enter alone is a new line', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', restingSession());
  api.answer('send', () => SENT);
  await stage.open(LINK, '.composer');
  const box = page.getByRole('textbox', { name: 'Message' });
  await box.focus();
  await page.keyboard.type('Also');
  await page.keyboard.press('Enter');
  await page.keyboard.type('the docs');
  await page.keyboard.press('Control+Enter');
  expect(await posted(api, 'send')).toEqual({
    instance: 'desk-shop',
    session: 'ses_pay',
    message: 'Also\nthe docs',
    requestId: expect.stringMatching(/^[0-9a-f]{32}$/),
  });
  await until('an empty box', async () => (await box.inputValue()) === '');
});

test('a refused message stays, and keeps its request id when it is sent again', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', restingSession());
  api.answer('send', () => ({ status: 503, body: { error: 'desk-shop does not answer; try again' } }));
  await stage.open(LINK, '.composer');
  const box = page.getByRole('textbox', { name: 'Message' });
  const send = page.getByRole('button', { name: 'Send' });
  await box.fill('Also the docs');
  await send.click();
  await page.getByText('Not sent. desk-shop does not answer; try again').waitFor();
  await stage.focusIsOn('button[type=submit]');
  expect(await box.inputValue()).toBe('Also the docs');
  await page.reload();
  await page.locator('.composer').waitFor();
  expect(await box.inputValue()).toBe('Also the docs');
  await send.click();
  await page.getByText(/^Not sent/).waitFor();
  api.answer('send', () => SENT);
  await send.click();
  const [, second, third] = [await posted(api, 'send', 1), await posted(api, 'send', 2), await posted(api, 'send', 3)];
  expect(third['requestId']).toBe(second['requestId']);
  await until('an empty box', async () => (await box.inputValue()) === '');
});

test('nothing is sent while a session works; the typed text can be sent after it', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([]));
  await stage.open(LINK, '.composer');
  const send = page.getByRole('button', { name: 'Send' });
  await page.getByText('It is working: send when it is done, or stop it first.').waitFor();
  await page.getByRole('textbox', { name: 'Message' }).fill('Also the docs');
  await page.keyboard.press('Control+Enter');
  expect(await send.isEnabled()).toBe(false);
  api.push('ses_pay', { kind: 'state', state: 'idle' });
  await until('a button that sends', () => send.isEnabled());
  await page.getByRole('textbox', { name: 'Message' }).fill('Also the docs, please');
  await send.click();
  expect(await posted(api, 'send')).toMatchObject({ message: 'Also the docs, please' });
});

test('an unreachable node loses no text', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', restingSession());
  await stage.open(LINK, '.composer');
  await page.getByRole('textbox', { name: 'Message' }).fill('Also the docs');
  await api.stop();
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByText('Not sent. The node does not answer. Nothing is lost: try again.').waitFor();
  expect(await page.getByRole('textbox', { name: 'Message' }).inputValue()).toBe('Also the docs');
});

test('the first message opens a new session', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.answer('send', () => SENT);
  await stage.open('', '.row');
  await page.getByRole('link', { name: 'desk-dotfiles' }).click();
  await stage.focusIsOn('textarea');
  await page.keyboard.type('Tidy up');
  await page.keyboard.press('Control+Enter');
  expect(await posted(api, 'send')).toMatchObject({ instance: 'desk-dotfiles', session: null, message: 'Tidy up' });
  await page.locator('.message').first().waitFor();
  expect(page.url()).toContain('#/s/desk-dotfiles/ses_pay');
});
