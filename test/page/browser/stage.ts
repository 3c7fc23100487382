import { afterAll, beforeEach } from 'vitest';

import { type BrowserPage, needBrowser, type OpenBrowser, openBrowser } from '../../rig/browser.ts';
import { type PageApi, type PageLine, startPageApi } from '../../rig/page-api.ts';
import { until } from '../../rig/wait.ts';
import { paySession, threeMachines } from './scenes.ts';

export interface PageStage extends AsyncDisposable {
  readonly api: PageApi;
  readonly page: BrowserPage;
  /** Errors in the page, and violations of its policy. */
  readonly faults: readonly string[];
  /** Where its requests went. */
  readonly requests: readonly string[];
  /** Opens `/#…` and waits until `selector` is there. */
  open(hash: string, selector: string): Promise<void>;
  /** Waits until the element that has the focus matches. */
  focusIsOn(selector: string): Promise<void>;
}

/** Call once per file, for one browser. The result opens a page of a new scripted node. */
export function browserSuite(): (options?: Parameters<OpenBrowser['page']>[0]) => Promise<PageStage> {
  let browser: Promise<OpenBrowser> | undefined;
  beforeEach(needBrowser);
  afterAll(async () => (await browser)?.[Symbol.asyncDispose]());
  return async (options) => {
    if (browser === undefined) {
      browser = openBrowser();
      // The real component that the suite drove.
      process.stdout.write(`chromium ${(await browser).version}\n`);
    }
    return openStage(await (await browser).page(options));
  };
}

async function openStage(page: BrowserPage): Promise<PageStage> {
  const api = await startPageApi();
  api.setFleet(threeMachines());
  api.setSession('ses_pay', paySession());
  const faults: string[] = [];
  const requests: string[] = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) faults.push(message.text());
  });
  page.on('dialog', (dialog) => {
    faults.push('a dialog');
    void dialog.dismiss();
  });
  page.on('request', (request) => requests.push(request.url()));
  return {
    api,
    page,
    faults,
    requests,
    async open(hash, selector) {
      await page.goto(`${api.url}/${hash}`);
      await page.locator(selector).first().waitFor();
    },
    async focusIsOn(selector) {
      await until(`the focus on ${selector}`, () =>
        page.evaluate<boolean>(`document.activeElement?.matches(${JSON.stringify(selector)}) ?? false`),
      );
    },
    async [Symbol.asyncDispose]() {
      await page.close();
      await api[Symbol.asyncDispose]();
    },
  };
}

/** The body of POST number `count` to a path. */
export async function posted(api: PageApi, path: string, count = 1): Promise<PageLine> {
  const bodies = (): PageLine[] => api.posts.filter((one) => one.path === path).map(({ body }) => body);
  await until(`${count} POST of ${path}`, () => bodies().length >= count);
  return bodies()[count - 1] ?? {};
}
