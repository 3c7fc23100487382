import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { TestContext } from 'vitest';

import { skipFor, SYSTEM_PACKAGES } from '../needed.ts';
import { tempDir } from '../temp.ts';

const components = createRequire(join(import.meta.dirname, '../../components/package.json'));
/** Paths of Chromium on Debian and its derivatives. */
const PROGRAMS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** The part of playwright-core that the suites use; its own types exist only once the components are installed. */
export interface BrowserLocator {
  click(options?: { readonly force?: boolean }): Promise<void>;
  fill(text: string): Promise<void>;
  check(): Promise<void>;
  focus(): Promise<void>;
  press(key: string): Promise<void>;
  waitFor(options?: { readonly state?: 'visible' | 'hidden' | 'attached' | 'detached' }): Promise<void>;
  innerText(): Promise<string>;
  inputValue(): Promise<string>;
  isVisible(): Promise<boolean>;
  isEnabled(): Promise<boolean>;
  count(): Promise<number>;
  allInnerTexts(): Promise<string[]>;
  getAttribute(name: string): Promise<string | null>;
  boundingBox(): Promise<{ x: number; y: number; width: number; height: number } | null>;
  locator(selector: string): BrowserLocator;
  getByRole(role: string, options?: RoleOptions): BrowserLocator;
  getByText(text: string | RegExp): BrowserLocator;
  first(): BrowserLocator;
  nth(index: number): BrowserLocator;
}

interface RoleOptions {
  readonly name?: string | RegExp;
  readonly exact?: boolean;
}

export interface BrowserPage {
  readonly keyboard: { press(key: string): Promise<void>; type(text: string): Promise<void> };
  /** The page's clock, once installed. */
  readonly clock: { install(): Promise<void>; fastForward(ms: number): Promise<void> };
  goto(url: string): Promise<unknown>;
  reload(): Promise<unknown>;
  url(): string;
  title(): Promise<string>;
  emulateMedia(media: { readonly colorScheme?: 'light' | 'dark'; readonly reducedMotion?: 'reduce' }): Promise<void>;
  screenshot(): Promise<Buffer>;
  locator(selector: string): BrowserLocator;
  getByRole(role: string, options?: RoleOptions): BrowserLocator;
  getByText(text: string | RegExp): BrowserLocator;
  getByLabel(text: string | RegExp): BrowserLocator;
  /** JavaScript for the page; this project has no DOM types. */
  evaluate<T>(script: string): Promise<T>;
  addInitScript(script: string): Promise<void>;
  on(event: 'pageerror', listener: (error: Error) => void): void;
  on(event: 'dialog', listener: (dialog: { dismiss(): Promise<void> }) => void): void;
  on(event: 'console', listener: (message: { type(): string; text(): string }) => void): void;
  on(event: 'request', listener: (request: { url(): string }) => void): void;
  close(): Promise<void>;
}

interface Browser {
  newPage(options: PageOptions): Promise<BrowserPage>;
  version(): string;
  close(): Promise<void>;
}

interface PageOptions {
  readonly viewport?: { readonly width: number; readonly height: number };
  readonly colorScheme?: 'light' | 'dark';
  readonly hasTouch?: boolean;
}

/** A real headless Chromium. */
export interface OpenBrowser extends AsyncDisposable {
  /** A page with its own cookies and storage. */
  page(options?: PageOptions): Promise<BrowserPage>;
  readonly version: string;
}

/** Skips the test if no browser is installed. Call it in the first line of a test that needs a browser. */
export function needBrowser(context: TestContext): void {
  const isAvailable = chromiumProgram() !== undefined && isInstalled('playwright-core') && isInstalled('axe-core');
  skipFor(context, isAvailable ? undefined : `needs chromium (${SYSTEM_PACKAGES}) and test/components`);
}

export interface BrowserOptions {
  /** A command that runs Chromium elsewhere, such as `ip netns exec …`. */
  readonly prefix?: readonly string[];
  /** Addresses of further host names. */
  readonly hosts?: Readonly<Record<string, string>>;
}

/** Starts Chromium, which resolves only loopback and `hosts`. */
export async function openBrowser({ prefix = [], hosts = {} }: BrowserOptions = {}): Promise<OpenBrowser> {
  const { chromium } = components('playwright-core') as {
    readonly chromium: { launch(options: object): Promise<Browser> };
  };
  const temp = tempDir('opencode-mcp-browser');
  const executablePath = join(temp.path, 'chromium');
  const command = [...prefix, chromiumProgram() ?? 'chromium'].map(
    (word) => `'${word.replaceAll("'", String.raw`'\''`)}'`,
  );
  await writeFile(executablePath, `#!/bin/sh\nexec ${command.join(' ')} "$@"\n`, { mode: 0o755 });
  const mappings = Object.entries(hosts).map(([name, address]) => `MAP ${name} ${address}`);
  const exclusions = ['localhost', '*.localhost', '127.*', ...Object.values(hosts)].map((name) => `EXCLUDE ${name}`);
  const args = [
    // As root Chromium needs its sandbox off; tests open only their own pages.
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-background-networking',
    // Otherwise Chromium would contact its vendor's hosts.
    `--host-resolver-rules=${[...mappings, 'MAP * ~NOTFOUND', ...exclusions].join(', ')}`,
  ];
  const browser = await chromium.launch({ executablePath, args, env: { ...process.env, TMPDIR: temp.tmp } });
  return {
    version: browser.version(),
    page: (options = {}) => browser.newPage({ viewport: { width: 1280, height: 800 }, ...options }),
    async [Symbol.asyncDispose]() {
      await browser.close();
      await temp.close();
    },
  };
}

/** axe-core's findings on the current page: rule and element. */
export async function accessibilityFaults(page: BrowserPage): Promise<string[]> {
  const { source } = components('axe-core') as { readonly source: string };
  await page.evaluate(`(() => { if (window.axe === undefined) { ${source} } })()`);
  return page.evaluate<string[]>(`axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
    violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => id + ': ' + html.slice(0, 200) + ' ' + failureSummary)))`);
}

export function chromiumProgram(): string | undefined {
  return PROGRAMS.find((path) => existsSync(path));
}

function isInstalled(name: string): boolean {
  try {
    components.resolve(name);
    return true;
  } catch {
    return false;
  }
}
