import { describe, expect, onTestFinished, test } from 'vitest';

import { openDashboard } from '../../src/attach/dashboard.ts';
import type { OpenDoor } from '../../src/attach/door.ts';
import { systemClock } from '../../src/base/clock.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { testRuntime } from '../rig/runtime.ts';
import { browser, openPageStage, type PageAnswer, type PageStage } from './stage.ts';

const FLEET = `${PAGE_PREFIX}v1/fleet`;
const LOCAL = { from: '127.0.0.1' };

interface Opened extends OpenDoor {
  readonly port: number;
  /** As a browser that has no cookie yet. */
  enter(path?: string, headers?: Readonly<Record<string, string>>): Promise<PageAnswer>;
  /** The page in that browser. */
  page(cookie: string): Pick<PageStage, 'call' | 'post' | 'stream'>;
}

async function open(stage: PageStage, isOwn = true, role: 'read' | 'drive' = 'drive'): Promise<Opened> {
  const dashboard = await openDashboard({
    runtime: testRuntime(stage.instances.fleet, `${stage.registry.path}/requests`),
    caller: { name: 'ada on this machine', role },
    clock: systemClock,
    logger: { log: () => {} },
    record: () => {},
    isOwnPeer: () => Promise.resolve(isOwn),
  });
  onTestFinished(() => dashboard.close());
  const { port, pathname } = new URL(dashboard.url);
  const at = { host: '127.0.0.1', port: Number(port) };
  return {
    ...dashboard,
    port: Number(port),
    enter: (path = pathname, headers = {}) =>
      browser(at, dashboard.origin).call(path, { ...LOCAL, headers: { 'x-opencode-mcp-page': [], ...headers } }),
    page: (cookie) => browser(at, dashboard.origin, { cookie }),
  };
}

function cookieOf({ headers }: PageAnswer): string {
  return headers['set-cookie']?.[0]?.split(';', 1)[0] ?? '';
}

describe('the dashboard', () => {
  test('its address lets one browser in, once; then the page works there', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession({ title: 'Fix the build' });
    stage.fake.state.begin(session.id, 'go on');
    const { id } = stage.fake.addPermission({ sessionID: session.id });
    const dashboard = await open(stage);
    expect(dashboard.url).toMatch(/^http:\/\/[0-9a-f]{20}\.localhost:\d+\/opencode-mcp\/page\/enter\/[\w-]{43}$/);
    const first = await dashboard.enter();
    expect(first).toMatchObject({ status: 303, headers: { location: '/', 'cache-control': 'no-store' } });
    expect(first.headers['set-cookie']).toEqual([expect.stringMatching(/; Path=\/; HttpOnly; SameSite=Strict$/)]);
    expect(await dashboard.enter()).toMatchObject({
      status: 403,
      text: expect.stringContaining('already used') as string,
    });
    const page = dashboard.page(cookieOf(first));
    expect(await page.call('/', LOCAL)).toMatchObject({
      status: 200,
      text: expect.stringContaining('<!doctype html>') as string,
    });
    await using lines = await page.stream('v1/fleet', LOCAL);
    const shown = await lines.find('what waits', (line) => JSON.stringify(line).includes(id));
    expect(shown).toMatchObject({ you: { name: 'ada on this machine', role: 'drive', all: true } });
    const answer = { instance: 'one', session: session.id, request: id, reply: 'once' };
    expect(await page.post('respond', answer, LOCAL)).toMatchObject({ status: 200, json: { done: true } });
  });

  test('its address is worth nothing to another user of the machine, and stays good for its own', async () => {
    await using stage = await openPageStage();
    const dashboard = await open(stage, false);
    const answer = await dashboard.enter();
    expect(answer).toMatchObject({ status: 403, text: expect.stringContaining('cannot verify') as string });
    expect(cookieOf(answer)).toBe('');
  });

  test.each<[string, (port: number) => Record<string, string | string[]>, number]>([
    ['without a cookie', () => ({ cookie: [] }), 403],
    ['with another cookie', () => ({ cookie: `opencode-mcp=${'x'.repeat(43)}` }), 403],
    ['under the bare address, where cookies of other ports are sent', (port) => ({ host: `127.0.0.1:${port}` }), 421],
    ['under a name that was pointed here', (port) => ({ host: `evil.example:${port}` }), 421],
    ['by a page of another port', () => ({ origin: 'http://127.0.0.1:4096' }), 403],
    ['by a page of a neighbour host', () => ({ origin: 'http://localhost' }), 403],
    ['by a page of another site', () => ({ 'sec-fetch-site': 'cross-site' }), 403],
    ['by a page of another port, as browsers say', () => ({ 'sec-fetch-site': 'same-site' }), 403],
    ['without the page’s own header', () => ({ 'x-opencode-mcp-page': [] }), 403],
  ])('nothing is given out %s', async (_, change, status) => {
    await using stage = await openPageStage();
    const dashboard = await open(stage);
    const page = dashboard.page(cookieOf(await dashboard.enter()));
    const answer = await page.call(FLEET, { ...LOCAL, headers: change(dashboard.port) });
    expect(answer).toMatchObject({ status, json: { error: expect.any(String) as string } });
  });

  test('two dashboards are two: what lets into one does not let into the other', async () => {
    await using stage = await openPageStage();
    const [one, other] = [await open(stage), await open(stage)];
    const cookie = cookieOf(await one.enter());
    expect(await other.page(cookie).call(FLEET, LOCAL)).toMatchObject({ status: 403 });
    expect(await other.enter(new URL(one.url).pathname)).toMatchObject({ status: 403 });
    expect(new URL(one.url).hostname).not.toBe(new URL(other.url).hostname);
  });

  test('with read-only settings it shows, and does nothing', async () => {
    await using stage = await openPageStage();
    const session = stage.fake.addSession();
    const dashboard = await open(stage, true, 'read');
    const page = dashboard.page(cookieOf(await dashboard.enter()));
    const message = { instance: 'one', session: session.id, message: 'x', requestId: 'r' };
    expect(await page.post('send', message, LOCAL)).toMatchObject({ status: 403 });
    expect(stage.fake.state.prompts).toEqual([]);
  });
});
