import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { announce } from '../rig/announce.ts';
import { type BrowserPage, needBrowser, type OpenBrowser, openBrowser } from '../rig/programs/browser.ts';
import { isMissing, PINNED_OPENCODE, PREVIEW_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { type Preview, startPreview } from '../rig/opencode/opencode-preview.ts';
import { type OpencodeSandbox, openSandbox } from '../rig/opencode/opencode-sandbox.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { type ScriptedModel, startScriptedModel } from '../rig/model/scripted-model.ts';
import { OPENCODE_MCP, runShell, shellEnv } from '../rig/programs/shell-command.ts';
import { needTmux, openTmux } from '../rig/programs/tmux.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

let browser: Promise<OpenBrowser> | undefined;
beforeEach(needBrowser);
afterAll(async () => (await browser)?.[Symbol.asyncDispose]());

interface Dashboard extends AsyncDisposable {
  readonly page: BrowserPage;
  readonly faults: readonly string[];
}

/** Opens `opencode-mcp dashboard` in a browser. */
async function openDashboard(env: Readonly<Record<string, string>>): Promise<Dashboard> {
  const program = runShell(['dashboard', '--print'], env);
  await program.shows(/^http:\S+$/m);
  browser ??= openBrowser();
  process.stdout.write(`chromium ${(await browser).version}\n`);
  const page = await (await browser).page();
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => {
    // The page itself shows a refused request, so this console message is no fault.
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) faults.push(message.text());
  });
  await page.goto(program.stdout().trim());
  await page.locator('.elsewhere').waitFor();
  return {
    page,
    faults,
    async [Symbol.asyncDispose]() {
      await page.close();
      program.kill('SIGTERM');
      await program.ended;
    },
  };
}

async function say(page: BrowserPage, text: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Message' }).fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

async function stateIs(page: BrowserPage, state: string): Promise<void> {
  await page.locator('.status').getByText(state).waitFor();
}

describe('OpenCode 1', () => {
  let stage: Stage;
  let opencode: Opencode;
  let person: OpencodeSandbox;
  let env: Readonly<Record<string, string>>;

  beforeAll(async () => {
    stage = await openStage();
    [opencode, person] = await Promise.all([stage.opencode(), openSandbox()]);
    await stage.register('worker', opencode, { id: 'worker-id' });
    env = { ...person.env, ...shellEnv(person.home, stage.registry.path), OPENCODE_BIN: PINNED_OPENCODE };
  });
  afterAll(async () => {
    await stage.close();
    await person.close();
  });

  test('one permission is answered on the page and another in the terminal, while both show both permissions', async (context) => {
    needTmux(context);
    await using dashboard = await openDashboard(env);
    const { page } = dashboard;
    const bytes = await page.evaluate<number>(`performance.getEntriesByType('resource').reduce(
      (sum, file) => sum + file.encodedBodySize, performance.getEntriesByType('navigation')[0].encodedBodySize)`);
    process.stdout.write(`the page: ${bytes} bytes\n`);
    expect(bytes).toBeLessThan(50_000);
    const { id } = await opencode.json<{ id: string }>('POST', '/session', { title: 'Seen twice' });
    await using terminal = await openTmux(env, person.home);
    await terminal.type(`${OPENCODE_MCP} attach worker ${id}`, 'Enter');
    await terminal.shows(/ctrl\+p commands/);
    await terminal.type('bash: echo settled > proof.txt', 'Enter');
    await terminal.shows(/Permission required/);
    const row = page.getByRole('region', { name: 'Needs you' }).locator('.row a');
    await row.waitFor();
    expect(await row.innerText()).toMatch(/Seen twice[^]*worker|test-host[^]*echo settled > proof\.txt/);
    expect(await page.title()).toBe('(1) opencode-mcp');
    await row.click();
    expect(await page.locator('.command').innerText()).toBe('echo settled > proof.txt');
    await page.getByRole('button', { name: 'Allow once' }).click();
    await page.locator('.result').getByText('Allowed once.').waitFor();
    await page.getByText(/bash returned/).waitFor();
    expect(await readFile(join(opencode.directory, 'proof.txt'), 'utf8')).toBe('settled\n');
    expect(await terminal.shows(/bash returned/)).not.toContain('Permission required');
    await page.locator('.group-done .row').first().waitFor();

    await say(page, 'bash: echo again > other.txt');
    await terminal.shows(/Permission required[^]*echo again/);
    await page.getByRole('button', { name: 'Allow once' }).waitFor();
    await terminal.type('', 'Enter');
    await page.locator('.result').getByText('Settled elsewhere.').waitFor();
    await until('the command to run', () => existsSync(join(opencode.directory, 'other.txt')));
    expect(dashboard.faults).toEqual([]);
  });

  test("`open` opens opencode's own page of a session, which shows new messages", async () => {
    const { id } = await opencode.json<{ id: string }>('POST', '/session', { title: 'In its own page' });
    const program = runShell(['open', 'worker', id, '--print'], env);
    await program.shows(/^http:\S+$/m);
    browser ??= openBrowser();
    const page = await (await browser).page();
    await page.goto(program.stdout().trim());
    await page.getByText('In its own page').first().waitFor();
    const parts = [{ type: 'text', text: 'echo: seen in its own page' }];
    await opencode.request('POST', `/session/${id}/prompt_async`, { parts });
    await page
      .getByText(/^seen in its own page$/)
      .first()
      .waitFor();
    await page.close();
    program.kill('SIGINT');
    expect(await program.ended).toBe(0);
  });

  test('a question is answered, a turn is stopped, and an edit shows as a change', async () => {
    await using dashboard = await openDashboard(env);
    const { page } = dashboard;
    const { id } = await opencode.json<{ id: string }>('POST', '/session', { title: 'From the page' });
    await page.goto(`${new URL(page.url()).origin}/#/s/worker/${id}`);
    await page.locator('.composer').waitFor();
    await say(page, 'ask: Which colour?|red|blue');
    await page.getByRole('radio', { name: 'blue' }).check();
    await page.getByRole('button', { name: 'Answer' }).click();
    await page.locator('.result').getByText('Answered.').waitFor();
    await page.getByText(/question returned[^]*blue/).waitFor();
    await stateIs(page, 'done');
    await say(page, 'hang');
    await stateIs(page, 'working');
    await page.getByRole('button', { name: 'Stop' }).click();
    await stateIs(page, 'stopped');
    const calls = [['write', { filePath: join(opencode.directory, 'notes.md'), content: 'one\ntwo\n' }]];
    await say(page, `plan: ${JSON.stringify(calls)}`);
    await page.getByText(/write returned/).waitFor();
    await page.getByRole('button', { name: 'Changes (1)' }).click();
    await page.locator('ins.line').first().waitFor();
    expect(await page.locator('ins.line').allInnerTexts()).toEqual(['+one', '+two']);
    expect(dashboard.faults).toEqual([]);
  });
});

describe.skipIf(isMissing(PREVIEW_OPENCODE))('the preview of OpenCode 2', () => {
  let model: ScriptedModel;
  let preview: Preview;

  beforeAll(async () => {
    model = await startScriptedModel();
    preview = await startPreview({ model, registered: true });
    announce(preview);
    await preview.json('POST', '/api/session', { location: { directory: preview.directory } });
  });
  afterAll(async () => {
    await preview?.close();
    await model?.close();
  });

  test('a permission is rejected with a reason, and a permission of a new session is allowed', async () => {
    const env = { ...shellEnv(preview.home, join(preview.home, 'no-registry')), TRANSPORT: 'service' };
    await using dashboard = await openDashboard(env);
    const { page } = dashboard;
    await page.locator('.row a').first().click();
    await page.locator('.composer').waitFor();
    await say(page, 'bash: echo never > never.txt');
    await page.getByLabel('Why not (optional)').fill('Not now');
    await page.getByRole('button', { name: 'Reject' }).click();
    await page.locator('.result').getByText('Rejected.').waitFor();
    await page.getByRole('link', { name: 'New session', exact: true }).click();
    await page.getByText(/Write the first message/).waitFor();
    await say(page, 'bash: echo settled > proof.txt');
    await page.getByRole('button', { name: 'Allow once' }).click();
    await page.getByText(/bash returned/).waitFor();
    expect(existsSync(join(preview.directory, 'never.txt'))).toBe(false);
    expect(await readFile(join(preview.directory, 'proof.txt'), 'utf8')).toBe('settled\n');
    expect(dashboard.faults).toEqual([]);
  });
});
