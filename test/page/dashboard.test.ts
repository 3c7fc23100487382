import { afterAll, expect, onTestFinished, test } from 'vitest';

import { openDashboard } from '../../src/attach/dashboard.ts';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { testRuntime } from '../rig/runtime.ts';
import { browser, openPageStage, type PageAnswer } from './stage.ts';

// test/attach/web-forwarder.test.ts tests the entrance that the dashboard shares with `opencode-mcp open`.

const FLEET = `${PAGE_PREFIX}v1/fleet`;
const LOCAL = { from: '127.0.0.1' };

const stage = await openPageStage();
afterAll(() => stage[Symbol.asyncDispose]());

async function open() {
  const dashboard = await openDashboard({
    runtime: testRuntime(stage.instances.fleet, `${stage.registry.path}/requests`),
    caller: { name: 'ada on this machine', role: 'drive' },
    clock: systemClock,
    logger: silentLogger,
    record: () => {},
    isOwnPeer: () => Promise.resolve(true),
  });
  onTestFinished(() => dashboard.close());
  const { port, pathname } = new URL(dashboard.url);
  const at = { host: '127.0.0.1', port: Number(port) };
  return {
    ...dashboard,
    port,
    /** Opens an address in a browser that has no cookie yet. */
    enter: (path = pathname) =>
      browser(at, dashboard.origin).call(path, { ...LOCAL, headers: { 'x-opencode-mcp-page': [] } }),
    /** The page in the browser with this cookie. */
    page: (cookie: string) => browser(at, dashboard.origin, { cookie }),
  };
}

function cookieOf({ headers }: PageAnswer): string {
  return headers['set-cookie']?.[0]?.split(';', 1)[0] ?? '';
}

test('the address admits one browser once, and the page works there', async () => {
  const waiting = stage.waiting();
  const dashboard = await open();
  expect(dashboard.url).toMatch(/^http:\/\/[0-9a-f]{20}\.localhost:\d+\/opencode-mcp\/page\/enter\/[\w-]{43}$/);
  const first = await dashboard.enter();
  expect(first).toMatchObject({ status: 303, headers: { location: '/' } });
  expect(await dashboard.enter()).toMatchObject({ status: 403, text: expect.stringContaining('already used') });
  const page = dashboard.page(cookieOf(first));
  expect(await page.call('/', LOCAL)).toMatchObject({
    status: 200,
    text: expect.stringContaining('<!doctype html>'),
  });
  await using lines = await page.stream('v1/fleet', LOCAL);
  const shown = await lines.find('the request', (line) => JSON.stringify(line).includes(waiting.request));
  expect(shown).toMatchObject({ you: { name: 'ada on this machine', role: 'drive', all: true } });
  const answer = { ...waiting, reply: 'once' };
  expect(await page.post('respond', answer, LOCAL)).toMatchObject({ status: 200, json: { done: true } });
});

test.each<[string, (port: string) => Record<string, string | string[]>, number]>([
  ['without a cookie', () => ({ cookie: [] }), 403],
  ['under the bare address', (port) => ({ host: `127.0.0.1:${port}` }), 421],
  ['by a page of another port', () => ({ origin: 'http://127.0.0.1:4096' }), 403],
  ['without the page’s own header', () => ({ 'x-opencode-mcp-page': [] }), 403],
])('a request %s gets an error in JSON', async (_, change, status) => {
  const dashboard = await open();
  const page = dashboard.page(cookieOf(await dashboard.enter()));
  const answer = await page.call(FLEET, { ...LOCAL, headers: change(dashboard.port) });
  expect(answer).toMatchObject({ status, json: { error: expect.any(String) } });
});

test('neither the cookie nor the address of one dashboard opens another', async () => {
  const [one, other] = [await open(), await open()];
  const cookie = cookieOf(await one.enter());
  expect(await other.page(cookie).call(FLEET, LOCAL)).toMatchObject({ status: 403 });
  expect(await other.enter(new URL(one.url).pathname)).toMatchObject({ status: 403 });
  expect(new URL(one.url).hostname).not.toBe(new URL(other.url).hostname);
});
