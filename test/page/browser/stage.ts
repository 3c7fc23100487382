import { beforeEach, expect, test as base } from 'vitest';

import { needBrowser, type OpenBrowser, openBrowser } from '../../rig/programs/browser.ts';
import { type PageLine, startPageApi } from '../../rig/fake/page-api.ts';
import { until } from '../../rig/wait.ts';
import { paySession, SESSION_LINK, threeMachines } from './scenes.ts';

type PageOptions = NonNullable<Parameters<OpenBrowser['page']>[0]>;

beforeEach(({ task }) => needBrowser(task.context));

/**
 * Each test gets a page in its file's browser, and a scripted node. A test fails if the page throws, logs an error, violates its
 * policy or opens a dialog.
 */
export const test = base
  // oxlint-disable-next-line no-empty-pattern -- vitest requires a pattern here
  .extend('browser', { scope: 'file' }, async ({}, { onCleanup }) => {
    const browser = await openBrowser();
    onCleanup(() => browser[Symbol.asyncDispose]());
    // The real component that the suite drove.
    process.stdout.write(`chromium ${browser.version}\n`);
    return browser;
  })
  .extend('pageOptions', {} as PageOptions)
  .extend('api', async ({ onTestFinished }) => {
    const api = await startPageApi();
    onTestFinished(() => api[Symbol.asyncDispose]());
    api.setFleet(threeMachines());
    api.setSession('ses_pay', paySession());
    return Object.assign(api, {
      /** The body of POST number `count` to a path. */
      posted: async (path: string, count = 1) => {
        const bodies = (): PageLine[] => api.posts.filter((one) => one.path === path).map(({ body }) => body);
        await until(`${count} POST of ${path}`, () => bodies().length >= count);
        return bodies()[count - 1] ?? {};
      },
    });
  })
  .extend('page', async ({ api, browser, pageOptions }, { onCleanup }) => {
    const page = await browser.page(pageOptions);
    const faults: string[] = [];
    onCleanup(async () => {
      await page.close();
      expect(faults).toEqual([]);
    });
    page.on('pageerror', (error) => faults.push(String(error)));
    page.on('console', (message) => {
      // A refusal is shown on the page.
      if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) faults.push(message.text());
    });
    page.on('dialog', (dialog) => {
      faults.push('a dialog');
      void dialog.dismiss();
    });
    const open = async (hash: string, selector: string): Promise<void> => {
      await page.goto(`${api.url}/${hash}`);
      await page.locator(selector).first().waitFor();
    };
    return Object.assign(page, {
      messageBox: page.getByRole('textbox', { name: 'Message' }),
      button: (name: string) => page.getByRole('button', { name }),
      /** Opens `/#…` and waits until `selector` is there. */
      open,
      /** Opens the session `ses_pay` with these requests. */
      openSession: async (asks: readonly PageLine[], selector: string) => {
        api.setSession('ses_pay', paySession(asks));
        await open(SESSION_LINK, selector);
      },
      /** Waits until the element that has the focus matches. */
      focusIsOn: async (selector: string) => {
        const script = `document.activeElement?.matches(${JSON.stringify(selector)}) ?? false`;
        await until(`the focus on ${selector}`, () => page.evaluate<boolean>(script));
      },
      /** Waits until the page has drawn what it has received. */
      isDrawn: () => page.evaluate(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))`),
    });
  });
