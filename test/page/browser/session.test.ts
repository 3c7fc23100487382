import { expect, test } from 'vitest';

import { deferred, until } from '../../rig/wait.ts';
import { CHANGES, COMMAND, minutesAgo, PERMISSION, paySession } from './scenes.ts';
import { browserSuite, posted } from './stage.ts';

const open = browserSuite();

const DEEP_LINK = '#/s/desk-shop/ses_pay/per_1';
const LINK = '#/s/desk-shop/ses_pay';

test('a tap on a row opens its session, with the request in focus', async () => {
  await using stage = await open();
  const { page } = stage;
  await stage.open('', '.row');
  await page.getByText('Retry failed payments, release it').first().click();
  await stage.focusIsOn('.ask');
  expect(page.url()).toContain(DEEP_LINK);
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
  expect(stage.faults).toEqual([]);
});

test('the transcript follows as it streams: text, tools, errors', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([]));
  await stage.open(LINK, '.message');
  const message = { id: 'msg_3', role: 'assistant', atMs: minutesAgo(0), done: false, parts: [] as object[] };
  api.push('ses_pay', { kind: 'message', message });
  api.push('ses_pay', { kind: 'text', message: 'msg_3', part: 'prt_a', text: 'Now the ' });
  api.push('ses_pay', { kind: 'text', message: 'msg_3', part: 'prt_a', text: 'changelog.\n\nThen' });
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
  const end =
    'document.querySelector(".talk").scrollHeight - document.querySelector(".talk").scrollTop - document.querySelector(".talk").clientHeight';
  expect(await page.evaluate<number>(end)).toBeLessThan(80);
  expect(await page.locator('.message').count()).toBe(3);
});

test('a reader above the end stays there, and a button leads to the newest', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', longSession());
  await stage.open(LINK, '.message');
  await page.evaluate(`document.querySelector('.talk').scrollTop = 100`);
  await page.evaluate(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))`);
  api.push('ses_pay', { kind: 'text', message: 'msg_60', part: 'prt_60', text: ' and the end' });
  await page.getByRole('button', { name: 'Newest' }).click();
  expect(await page.evaluate<number>(`document.querySelector('.talk').scrollTop`)).toBeGreaterThan(100);
  await page.getByText(/and the end/).waitFor();
});

test('earlier messages are added above without moving the view', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', longSession('cursor/1'));
  api.setOlder('cursor/1', [{ kind: 'messages', messages: [1, 2, 3].map(longMessage) }]);
  await stage.open(LINK, '.message');
  await page.evaluate(`document.querySelector('.talk').scrollTop = 0`);
  const first = page.getByText('Message 11,').first();
  const before = (await first.boundingBox())?.y ?? 0;
  await page.getByRole('button', { name: 'Show earlier messages' }).click();
  await page.getByText('Message 1,').waitFor({ state: 'attached' });
  await until(
    'no button',
    async () => !(await page.getByRole('button', { name: 'Show earlier messages' }).isVisible()),
  );
  await page.evaluate(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))`);
  // The button itself is gone.
  expect(Math.abs(((await first.boundingBox())?.y ?? 0) - before)).toBeLessThan(60);
});

test('a gone session shows the reason beside the list', async () => {
  await using stage = await open();
  const { page } = stage;
  await stage.open('#/s/desk-shop/ses_gone/per_1', '.session-head .error');
  await page.getByText(/no session "ses_gone" there/).waitFor();
  expect(await page.locator('.row').count()).toBe(4);
});

test('changed lines differ by sign and element, not only by color', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setChanges('ses_pay', CHANGES);
  await stage.open(LINK, '.message');
  await page.getByRole('button', { name: 'Changes (2)' }).click();
  await page.locator('.diff').first().waitFor();
  expect(await page.locator('ins.line').allInnerTexts()).toHaveLength(3);
  expect(await page.locator('del.line').allInnerTexts()).toEqual(['-    await this.run(job);']);
  expect(await page.getByRole('region', { name: 'Conversation' }).isVisible()).toBe(false);
  await page.getByRole('button', { name: 'Changes (2)' }).click();
  await page.getByRole('region', { name: 'Conversation' }).waitFor();
});

test('changes that can no longer be read: the reason stands above the last ones', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setChanges('ses_pay', CHANGES);
  await stage.open(LINK, '.message');
  const toggle = page.getByRole('button', { name: 'Changes (2)' });
  await toggle.click();
  await page.locator('.diff').first().waitFor();
  api.refuse('changes', 503, 'desk-shop does not answer');
  await toggle.click();
  await toggle.click();
  await page.getByText('desk-shop does not answer').waitFor();
  expect(await page.locator('.file').count()).toBe(2);
});

test('the reason of a refused stop stays, whatever the stream sends next', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([]));
  api.answer('abort', () => ({ status: 503, body: { error: 'desk-shop does not answer' } }));
  await stage.open(LINK, '.stop');
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByText('desk-shop does not answer').waitFor();
  api.push('ses_pay', { kind: 'state', state: 'retrying' });
  await page.locator('.status').getByText('retrying').waitFor();
  expect(await page.getByText('desk-shop does not answer').isVisible()).toBe(true);
});

test('stop', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([]));
  await stage.open(LINK, '.stop');
  const gate = deferred<void>();
  api.answer('abort', async () => {
    await gate.promise;
    return { body: { text: 'Stopped.' } };
  });
  const stop = page.getByRole('button', { name: 'Stop' });
  await stop.click();
  expect(await posted(api, 'abort')).toEqual({ instance: 'desk-shop', session: 'ses_pay' });
  expect(await stop.isEnabled()).toBe(false);
  gate.resolve();
  api.push('ses_pay', { kind: 'state', state: 'interrupted' });
  await page.locator('.status').getByText('stopped').waitFor();
  expect(await stop.isVisible()).toBe(false);
  await stage.focusIsOn('.talk');
});

test('a reader sees the request without buttons', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession(
    'ses_pay',
    paySession().map((line) => (line['kind'] === 'session' ? { ...line, canDrive: false } : line)),
  );
  await stage.open(DEEP_LINK, '.ask');
  await page.getByText('Your role here is "read": you cannot send.').waitFor();
  expect(await page.locator('.command').innerText()).toBe(COMMAND);
  for (const name of ['Allow once', 'Reject', 'Send', 'Stop'])
    expect(await page.getByRole('button', { name }).count(), name).toBe(0);
});

test('a session streams on after the node restarted, without duplicates', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_pay', paySession([]));
  await stage.open(LINK, '.message');
  await api.stop();
  await page
    .locator('.session-head .error')
    .getByText(/does not answer/)
    .waitFor();
  await api.restart();
  await until('the stream', () => api.streams('ses_pay') === 1);
  api.push('ses_pay', { kind: 'asks', asks: [PERMISSION] });
  await page.locator('.ask').waitFor();
  expect(await page.locator('.message').count()).toBe(2);
  expect(await page.locator('.session-head .error').first().isVisible()).toBe(false);
});

test('a hidden tab drops its stream, and follows again when it is visible', async () => {
  await using stage = await open();
  const { page, api } = stage;
  await page.clock.install();
  await stage.open(LINK, '.message');
  const turn = (
    state: string,
  ): string => `Object.defineProperty(document, 'visibilityState', { value: '${state}', configurable: true }),
    document.dispatchEvent(new Event('visibilitychange'))`;
  await page.evaluate(turn('hidden'));
  expect(api.streams('ses_pay')).toBe(1);
  await page.clock.fastForward(21_000);
  await until('no stream of the session', () => api.streams('ses_pay') === 0);
  expect(api.streams('fleet')).toBe(1);
  await page.evaluate(turn('visible'));
  await until('the stream', () => api.streams('ses_pay') === 1);
});

test('another session replaces the open one, whose stream ends', async () => {
  await using stage = await open();
  const { page, api } = stage;
  api.setSession('ses_docs', [
    { kind: 'session', title: 'Docs', directory: '/d', state: 'idle', canDrive: true },
    { kind: 'messages', messages: [] },
  ]);
  await stage.open(LINK, '.message');
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

function longSession(older?: string): Record<string, unknown>[] {
  const messages = Array.from({ length: 50 }, (_, at) => longMessage(at + 11));
  return [
    { kind: 'session', title: 'Long', directory: '/d', state: 'busy', canDrive: true },
    { kind: 'messages', messages, ...(older !== undefined && { older }) },
    { kind: 'asks', asks: [] },
  ];
}
