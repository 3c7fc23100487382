import { expect } from 'vitest';

import { deferred, until } from '../../rig/wait.ts';
import { CHANGES, COMMAND, minutesAgo, PERMISSION, paySession, REQUEST_LINK, SESSION_LINK } from './scenes.ts';
import { test } from './stage.ts';

test('a tap on a row opens its session, with the request in focus', async ({ page }) => {
  await page.open('', '.row');
  await page.getByText('Retry failed payments, release it').first().click();
  await page.focusIsOn('.ask');
  expect(page.url()).toContain(REQUEST_LINK);
  const talk = await page.getByRole('region', { name: 'Conversation' }).innerText();
  expect(talk).toMatch(
    /You[^]*Failed payments should be retried[^]*Agent[^]*Reasoning[^]*I will look at how the queue/,
  );
  expect(talk).not.toContain('The queue retries at once today.');
  await page.getByText('Reasoning').click();
  await page.getByText('The queue retries at once today.').waitFor();
  expect(await page.locator('.command').innerText()).toBe(COMMAND);
  expect(await page.locator('.patterns').allInnerTexts()).toEqual(['git push *\nnpm publish *']);
  expect(await page.getByRole('button', { name: /always/i }).count()).toBe(0);
  expect(await page.locator('.row a[aria-current=page]').count()).toBe(1);
});

test('the transcript shows text, tools and errors as they stream', async ({ page, api }) => {
  await page.openSession([], '.message');
  const message = { id: 'msg_3', role: 'assistant', atMs: minutesAgo(0), done: false, parts: [] as object[] };
  const piece = { kind: 'text', message: 'msg_3', part: 'prt_a' };
  api.push('ses_pay', { kind: 'message', message }, { ...piece, text: 'Now the ' });
  api.push('ses_pay', { ...piece, text: 'changelog.\n\nThen' });
  await page.getByText('Now the changelog.').waitFor();
  const tool = { id: 'prt_b', kind: 'tool', tool: 'bash', title: 'npm run lint', state: 'running', text: '' };
  const words = { id: 'prt_a', kind: 'text', text: 'Now the changelog.\n\nThen the **release**.' };
  api.push('ses_pay', { kind: 'message', message: { ...message, parts: [words, tool] } });
  await page.locator('.tool[data-state=running]').getByText('npm run lint').waitFor();
  const failed = { ...tool, state: 'failed', text: 'exit 1' };
  api.push('ses_pay', {
    kind: 'message',
    message: { ...message, parts: [words, failed], done: true, error: 'The provider is overloaded' },
  });
  await page.getByText('Error: The provider is overloaded').waitFor();
  await page.locator('.tool[data-state=failed]').getByText('npm run lint').click();
  await page.getByText('exit 1').waitFor();
  const belowView = `(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight)(document.querySelector('.talk'))`;
  expect(await page.evaluate<number>(belowView)).toBeLessThan(80);
  expect(await page.locator('.message').count()).toBe(3);
});

test('a reader who has scrolled up keeps the position while messages arrive or load above, and a button leads to the newest', async ({
  page,
  api,
}) => {
  const messages = Array.from({ length: 50 }, (_, at) => longMessage(at + 11));
  api.setSession('ses_pay', [
    { kind: 'session', title: 'Long', directory: '/d', state: 'busy', canDrive: true },
    { kind: 'messages', messages, older: 'cursor/1' },
    { kind: 'asks', asks: [] },
  ]);
  api.setOlder('cursor/1', [{ kind: 'messages', messages: [1, 2, 3].map(longMessage) }]);
  await page.open(SESSION_LINK, '.message');
  await page.evaluate(`document.querySelector('.talk').scrollTop = 0`);
  const first = page.getByText('Message 11,').first();
  const before = (await first.boundingBox())?.y ?? 0;
  const earlier = page.button('Show earlier messages');
  await earlier.click();
  await page.getByText('Message 1,').waitFor({ state: 'attached' });
  await until('no button', async () => !(await earlier.isVisible()));
  await page.isDrawn();
  const scrolled = `document.querySelector('.talk').scrollTop`;
  const above = await page.evaluate<number>(scrolled);
  // The button itself is gone.
  expect(Math.abs(((await first.boundingBox())?.y ?? 0) - before)).toBeLessThan(60);

  api.push('ses_pay', { kind: 'text', message: 'msg_60', part: 'prt_60', text: ' and the end' });
  await page.button('Newest').click();
  expect(await page.evaluate<number>(scrolled)).toBeGreaterThan(above);
  await page.getByText(/and the end/).waitFor();
});

test('a session that is gone shows the reason beside the list', async ({ page }) => {
  await page.open('#/s/desk-shop/ses_gone/per_1', '.session-head .error');
  await page.getByText(/no session "ses_gone" there/).waitFor();
  expect(await page.locator('.row').count()).toBe(4);
});

test('changed lines differ by sign and element, not only by color; a failed reload shows its reason above them', async ({
  page,
  api,
}) => {
  api.setChanges('ses_pay', CHANGES);
  await page.open(SESSION_LINK, '.message');
  const toggle = page.button('Changes (2)');
  await toggle.click();
  await page.locator('.diff').first().waitFor();
  expect(await page.locator('ins.line').allInnerTexts()).toHaveLength(3);
  expect(await page.locator('del.line').allInnerTexts()).toEqual(['-    await this.run(job);']);
  const talk = page.getByRole('region', { name: 'Conversation' });
  expect(await talk.isVisible()).toBe(false);
  await toggle.click();
  await talk.waitFor();

  api.refuse('changes', 503, 'desk-shop does not answer');
  await toggle.click();
  await page.getByText('desk-shop does not answer').waitFor();
  expect(await page.locator('.file').count()).toBe(2);
});

test('Stop keeps the reason of a refusal, and is disabled after it is accepted until the turn has stopped', async ({
  page,
  api,
}) => {
  const refusal = page.getByText('desk-shop does not answer');
  api.answer('abort', () => ({ status: 503, body: { error: 'desk-shop does not answer' } }));
  await page.openSession([], '.stop');
  const stop = page.button('Stop');
  await stop.click();
  await refusal.waitFor();
  api.push('ses_pay', { kind: 'state', state: 'retrying' });
  await page.locator('.status').getByText('retrying').waitFor();
  expect(await refusal.isVisible()).toBe(true);

  const gate = deferred<void>();
  api.answer('abort', async () => {
    await gate.promise;
    return { body: { text: 'Stopped.' } };
  });
  await stop.click();
  expect(await api.posted('abort', 2)).toEqual({ instance: 'desk-shop', session: 'ses_pay' });
  expect(await stop.isEnabled()).toBe(false);
  gate.resolve();
  api.push('ses_pay', { kind: 'state', state: 'interrupted' });
  await page.locator('.status').getByText('stopped').waitFor();
  expect(await stop.isVisible()).toBe(false);
  await page.focusIsOn('.talk');
});

test('a reader sees the request without buttons', async ({ page, api }) => {
  api.setSession(
    'ses_pay',
    paySession().map((line) => (line['kind'] === 'session' ? { ...line, canDrive: false } : line)),
  );
  await page.open(REQUEST_LINK, '.ask');
  await page.getByText('Your role here is "read": you cannot send.').waitFor();
  expect(await page.locator('.command').innerText()).toBe(COMMAND);
  for (const name of ['Allow once', 'Reject', 'Send', 'Stop']) expect(await page.button(name).count(), name).toBe(0);
});

test('a session continues to stream after a restart of the node, without duplicates', async ({ page, api }) => {
  await page.openSession([], '.message');
  await api.stop();
  const error = page.locator('.session-head .error');
  await error.getByText(/does not answer/).waitFor();
  await api.restart();
  await until('the stream', () => api.streams('ses_pay') === 1);
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] });
  await page.locator('.ask').waitFor();
  expect(await page.locator('.message').count()).toBe(2);
  expect(await error.first().isVisible()).toBe(false);
});

test('a hidden tab drops its stream, and follows again when it is visible', async ({ page, api }) => {
  await page.clock.install();
  await page.open(SESSION_LINK, '.message');
  const turn = (state: string): Promise<unknown> =>
    page.evaluate(`Object.defineProperty(document, 'visibilityState', { value: '${state}', configurable: true }),
      document.dispatchEvent(new Event('visibilitychange'))`);
  await turn('hidden');
  expect(api.streams('ses_pay')).toBe(1);
  await page.clock.fastForward(21_000);
  await until('no stream of the session', () => api.streams('ses_pay') === 0);
  expect(api.streams('fleet')).toBe(1);
  await turn('visible');
  await until('the stream', () => api.streams('ses_pay') === 1);
});

test('another session replaces the open one, whose stream ends', async ({ page, api }) => {
  api.setSession('ses_docs', [
    { kind: 'session', title: 'Docs', directory: '/d', state: 'idle', canDrive: true },
    { kind: 'messages', messages: [] },
  ]);
  await page.open(SESSION_LINK, '.message');
  await page.getByText('Rewrite the install page').click();
  await page.locator('.session-title').getByText('Docs').waitFor();
  await page.getByText('No message yet.').waitFor();
  await until('one stream', () => api.streams('ses_pay') === 0 && api.streams('ses_docs') === 1);
  await page.keyboard.press('Escape');
  await until('no stream', () => api.streams('ses_docs') === 0);
});

function longMessage(at: number): object {
  return {
    id: `msg_${at}`,
    role: 'assistant',
    atMs: minutesAgo(90 - at),
    done: true,
    parts: [{ id: `prt_${at}`, kind: 'text', text: `Message ${at}, ${'of several lines '.repeat(30)}` }],
  };
}
