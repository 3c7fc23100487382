import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { type BrowserPage, chromiumProgram, needBrowser, type OpenBrowser, openBrowser } from '../rig/browser.ts';
import { type FakeNtfy, type NtfyMessage, startFakeNtfy } from '../rig/fake-ntfy.ts';
import { expectedReply } from '../rig/model-script.ts';
import { type ForwardedPort, forwardTo } from '../rig/tailnet-listener.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { needTailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { request } from './queries.ts';
import { NODE_PORT, openTailnetStage, originOf, type TailnetInstance, type TailnetStage } from './stage.ts';

/** An agent works on the desk; its person is out, with a phone that runs nothing but Tailscale and a browser. */
describe('an agent on another machine, from a phone', () => {
  let stage: TailnetStage;
  let temp: TempDir;
  let ntfy: FakeNtfy;
  let ntfyOnDesk: ForwardedPort;
  let browser: OpenBrowser;
  let phone: BrowserPage;
  let instance: TailnetInstance;
  const machine = (name: string): TailnetMachine => stage.tailnet.node(name);

  beforeAll(async () => {
    if (!canRunTailnet() || chromiumProgram() === undefined) return;
    temp = tempDir('tailnet-page');
    stage = await openTailnetStage({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'phone', mode: 'tun' },
      ],
    });
    ntfy = await startFakeNtfy();
    ntfyOnDesk = await forwardTo(machine('desk'), Number(new URL(ntfy.url).port));
    await mkdir(join(temp.path, 'opencode-mcp'));
    const channel = { type: 'ntfy', url: `http://127.0.0.1:${ntfyOnDesk.port}`, topic: 'agents' };
    const config = JSON.stringify({ notify: { channels: [channel] } });
    await writeFile(join(temp.path, 'opencode-mcp/config.json'), config, { mode: 0o600 });
    await stage.node(machine('desk'), { XDG_CONFIG_HOME: temp.path });
    await stage.node(machine('laptop'));
    instance = await stage.opencode(machine('desk'));
    const program = join(temp.path, 'chromium');
    const command = [...machine('phone').prefix, chromiumProgram()].map((word) => `'${word}'`).join(' ');
    await writeFile(program, `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
    const desk = (await machine('desk').localApi.status(AbortSignal.timeout(60_000))).self?.dnsName ?? '';
    browser = await openBrowser({ program, names: { [desk]: machine('desk').ip4 } });
    process.stdout.write(`chromium ${browser.version} on phone\n`);
    phone = await browser.page({ viewport: { width: 360, height: 740 }, hasTouch: true });
  });
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    ntfyOnDesk?.close();
    await ntfy?.close();
    await stage?.close();
    await temp?.close();
  });
  beforeEach(needTailnet);
  beforeEach(needBrowser);

  /** As the person did in opencode before they went out. */
  async function begin(title: string, text: string): Promise<string> {
    const { url, directory } = instance;
    const ask = async (path: string, body: object): Promise<string> => {
      const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
      const answer = await request(machine('laptop'), `${url}${path}?directory=${encodeURIComponent(directory)}`, init);
      expect(answer.status, answer.text).toBeLessThan(300);
      return answer.text;
    };
    const { id } = JSON.parse(await ask('/session', { title })) as { readonly id: string };
    await ask(`/session/${id}/prompt_async`, { parts: [{ type: 'text', text }] });
    return id;
  }
  const notification = (words: RegExp): Promise<NtfyMessage> =>
    until(`a notification of ${words}`, () =>
      ntfy.messages.find(({ title, message }) => words.test(`${title} ${message}`)),
    );
  const answered = (message: string, output: string): Promise<void> =>
    phone.getByText(expectedReply(message, output)).first().waitFor();

  it('a permission is notified with its command; a tap on the notification opens it, and one more settles it', async () => {
    const message = 'bash: echo from afar';
    const session = await begin('Deploy the site', message);
    const asked = await notification(/echo from afar/);
    expect(asked).toMatchObject({
      title: expect.stringContaining('Deploy the site') as string,
      click: expect.stringMatching(new RegExp(`^http://desk[^/]*:${NODE_PORT}/#/s/[^/]+/${session}/per_`)) as string,
    });
    await phone.goto(asked.click ?? '');
    await phone.locator('.ask').getByText('echo from afar').first().waitFor();
    await phone.getByRole('button', { name: 'Allow once' }).click();
    await answered(message, 'from afar');
    const settled = await until('the notification to be replaced', () => {
      const shown = ntfy.shown.get(asked.sequence_id ?? '');
      return shown === asked ? undefined : shown;
    });
    expect(settled.priority).toBe(1);
  });

  it('the page of one machine shows the others, live; what is rejected there with a word reaches the agent', async () => {
    await phone.goto(`${originOf(machine('laptop'))}/`);
    await phone.getByText('Deploy the site').first().waitFor();
    const message = 'bash: rm -rf build';
    await begin('Clean up', message);
    await phone.getByText('Clean up').first().click();
    await phone.locator('.ask').getByText('rm -rf build').first().waitFor();
    await phone.getByLabel(/Why not/).fill('Keep it, say done.');
    await phone.getByRole('button', { name: 'Reject' }).click();
    await phone
      .getByText(/^bash returned: [^]*feedback: Keep it, say done\./)
      .first()
      .waitFor();
  });
});
