import { expect } from 'vitest';

import { until } from '../../rig/wait.ts';
import { fleetOf, manySessions, minutesAgo, NOW_MS, session, threeMachines } from './scenes.ts';
import { test } from './stage.ts';

const ASKING = { state: 'waiting', waiting: [{ kind: 'permission', id: 'per_9', text: 'rm -rf build' }] };

test('three groups of rows show machine, directory, title, time and request', async ({ page, api }) => {
  await page.open('', '.row');
  const group = async (name: string): Promise<string> => page.getByRole('region', { name }).innerText();
  expect((await group('Needs you')).split('\n')).toEqual([
    'Needs you',
    '1',
    'Retry failed payments, release it',
    '3 min',
    'desk /home/ada/code/shop',
    expect.stringMatching(/^Permission git push --force-with-lease/),
  ]);
  expect(await group('Working')).toMatch(/retrying · overloaded, attempt 2[^]*working/);
  expect(await group('Done')).toContain('Rewrite the install page');
  const below = await page.locator('.elsewhere').innerText();
  expect(below).toContain('desk-dotfiles');
  expect(below).toContain('attic offline: last seen 2 days ago');
  const time = page.locator('.row time').first();
  expect(await time.getAttribute('datetime')).toBe(new Date(minutesAgo(3)).toISOString());
  expect(await time.getAttribute('title')).toMatch(/2026/);
  expect(api.gets).toEqual(['fleet?']);
});

test('a change is shown immediately, counted in the title and announced once', async ({ page, api }) => {
  api.setFleet(fleetOf([session('ses_1')]));
  await page.open('', '.group-working .row');
  expect(await page.title()).toBe('opencode-mcp');
  api.setFleet(fleetOf([session('ses_1', ASKING)]));
  await page.locator('.group-needs .row').waitFor();
  expect(await page.title()).toBe('(1) opencode-mcp');
  expect(await page.locator('#announcer').innerText()).toBe('1 session needs you.');
  api.setFleet(fleetOf([session('ses_1', { state: 'idle' })]));
  await page.locator('.group-done .row').waitFor();
  expect(await page.title()).toBe('opencode-mcp');
});

test('an update moves nothing and keeps the focus, and a new row above moves nothing in view', async ({
  page,
  api,
}) => {
  const fleet = manySessions(60) as { sessions: ReturnType<typeof session>[] };
  api.setFleet(fleet);
  await page.open('', '.row');
  const row = page.locator('.group-working .row a').nth(6);
  await row.focus();
  await page.isDrawn();
  await page.evaluate(`window.shifts = 0; new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.shifts += entry.value;
  }).observe({ type: 'layout-shift' })`);
  const places = `JSON.stringify([...document.querySelectorAll('.row')].map((one) => one.dataset.key + one.getBoundingClientRect().top))`;
  const before = await page.evaluate<string>(places);
  const focused = await page.evaluate<string>('document.activeElement.href');
  api.setFleet({
    ...fleet,
    at: NOW_MS + 180_000,
    sessions: fleet.sessions.map((one) => ({
      ...one,
      title: one.title.replace('Fix', 'Mend'),
      ...(one.state === 'busy' && { state: 'retrying', reason: 'overloaded' }),
    })),
  });
  await page.getByText('Mend the flaky test').first().waitFor();
  expect(await page.evaluate<string>(places)).toBe(before);
  expect(await page.evaluate<string>('document.activeElement.href')).toBe(focused);

  const top = (await row.boundingBox())?.y ?? 0;
  api.setFleet({
    ...fleet,
    sessions: [...fleet.sessions, session('ses_new', { ...ASKING, sinceMs: minutesAgo(500) })],
  });
  await page.locator('.row').getByText('Session ses_new').waitFor({ state: 'attached' });
  await page.isDrawn();
  // The browser scrolls by whole pixels of the device.
  expect(Math.abs(((await row.boundingBox())?.y ?? 0) - top)).toBeLessThan(1);
  expect(await page.evaluate<string>('document.activeElement.href')).toBe(focused);
  expect(await page.evaluate<number>('window.shifts')).toBe(0);
});

test('a row that changes its place or its group keeps the focus', async ({ page, api }) => {
  const one = session('ses_1', { ...ASKING, sinceMs: minutesAgo(9) });
  const other = session('ses_2', { ...ASKING, sinceMs: minutesAgo(5) });
  api.setFleet(fleetOf([one, other]));
  await page.open('', '.row');
  await page.locator('.row a').nth(1).focus();
  for (const [change, group] of [
    [{ ...ASKING, sinceMs: minutesAgo(20) }, '.group-needs .row:first-child a'],
    [{ state: 'busy' }, '.group-working .row a'],
    [{ state: 'idle' }, '.group-done .row a'],
  ] as const) {
    api.setFleet(fleetOf([one, session('ses_2', change)]));
    await page.focusIsOn(group);
    expect(await page.evaluate<string>('document.activeElement.textContent')).toContain('Session ses_2');
  }
});

test('the list stays visible while the node restarts, and reconnects by itself', async ({ page, api }) => {
  await page.open('', '.row');
  await api.stop();
  await page.getByText('Not connected').waitFor();
  await page.getByText(/The node does not answer. Trying again/).waitFor();
  expect(await page.locator('.row').count()).toBe(4);
  api.setFleet(fleetOf([session('ses_1', { title: 'After the restart' })]));
  await api.restart();
  await page.getByText('After the restart').waitFor();
  await page.getByText('Live').waitFor();
  expect(await page.getByText(/Trying again/).isVisible()).toBe(false);
});

test("a refusal is shown with the node's text", async ({ page, api }) => {
  api.refuse('fleet', 403, 'access denied: ask Ada to admit you');
  await page.open('', '.error');
  await page.getByText('access denied: ask Ada to admit you').waitFor();
});

test('a silent connection is dropped after 40 s, and immediately when the device wakes up', async ({ page, api }) => {
  await page.clock.install();
  await page.open('', '.row');
  // The page's clock goes on by itself too: 10 s of room.
  await page.clock.fastForward(30_000);
  expect(api.gets).toHaveLength(1);
  await page.clock.fastForward(15_000);
  await until('a second connection', () => api.gets.length === 2);
  await page.getByText('Live').waitFor();
  await page.clock.fastForward(21_000);
  expect(api.gets).toHaveLength(2);
  const wake = `document.dispatchEvent(new Event('visibilitychange')), document.getElementById('link-state').textContent`;
  expect(await page.evaluate<string>(wake)).toBe('Connecting');
  await until('a third connection', () => api.gets.length === 3);
  await page.getByText('Live').waitFor();
  await page.evaluate(
    `document.dispatchEvent(new Event('visibilitychange')); window.dispatchEvent(new Event('online'))`,
  );
  expect(api.gets).toHaveLength(3);
  await until('only one stream', () => api.streams('fleet') === 1);
});

test('the first list takes at most 60 KB', async ({ page, api }) => {
  api.setFleet(manySessions(60));
  await page.open('', '.row');
  const bytes = await page.evaluate<number>(`[
    ...performance.getEntriesByType('navigation'),
    ...performance.getEntriesByType('resource'),
  ].reduce((sum, file) => sum + file.encodedBodySize, 0)`);
  // The list's own stream goes on, so that the browser does not count it.
  const all = bytes + Buffer.byteLength(JSON.stringify(manySessions(60)));
  process.stdout.write(`first list of 60 sessions: ${all} bytes, ${bytes} of them files\n`);
  expect(bytes).toBeGreaterThan(10_000);
  expect(all).toBeLessThan(60 * 1024);
});

test('a button shows the other ended sessions, and moves the focus there', async ({ page, api }) => {
  api.setFleet(manySessions(60));
  await page.open('', '.row');
  const rows = page.locator('.group-done .row');
  expect(await rows.count()).toBe(12);
  await page.button('Show 24 more').click();
  expect(await rows.count()).toBe(36);
  await page.focusIsOn('.row:nth-child(13) a');
});

test('the page says that its user cannot act and sees only one machine', async ({ page, api }) => {
  api.setFleet({ ...threeMachines(), you: { name: 'bob@example.com', role: 'read', all: false } });
  await page.open('', '.row');
  await page
    .getByText('Your role here is "read": you cannot act. You see only the sessions of this machine.')
    .waitFor();
});
