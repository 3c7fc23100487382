import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeEach, describe, expect, it } from 'vitest';

import {
  type BrowserPage,
  chromiumProgram,
  needBrowser,
  type OpenBrowser,
  openBrowser,
} from '../rig/programs/browser.ts';
import { type FakeNtfy, type NtfyMessage, startFakeNtfy } from '../rig/fake/fake-ntfy.ts';
import { type ForwardedPort, forwardInto } from '../rig/network/forwarded-port.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { request } from './queries.ts';
import { NODE_PORT, stageForTests, type TailnetInstance } from './stage.ts';

/** An agent works on the desk. The phone runs only Tailscale and a browser. */
describe('an agent on another machine, driven from a phone', () => {
  const temp = tempDir('tailnet-page');
  let ntfy: FakeNtfy;
  let ntfyOnDesk: ForwardedPort;
  let browser: OpenBrowser;
  let phone: BrowserPage;
  let instance: TailnetInstance;
  const stage = stageForTests(
    {
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'phone', mode: 'tun' },
      ],
    },
    async () => {
      if (chromiumProgram() === undefined) return;
      ntfy = await startFakeNtfy();
      ntfyOnDesk = await forwardInto(machine('desk').namespace, Number(new URL(ntfy.url).port));
      await mkdir(join(temp.path, 'opencode-mcp'));
      const channel = { type: 'ntfy', url: `http://127.0.0.1:${ntfyOnDesk.port}`, topic: 'agents' };
      const config = JSON.stringify({ notify: { channels: [channel] } });
      await writeFile(join(temp.path, 'opencode-mcp/config.json'), config, { mode: 0o600 });
      // The page searches all sources, mDNS too.
      await stage.node(machine('desk'), { XDG_CONFIG_HOME: temp.path, ...NO_MULTICAST });
      await stage.node(machine('laptop'), NO_MULTICAST);
      instance = await stage.opencode(machine('desk'));
      const desk = (await machine('desk').localApi.status(AbortSignal.timeout(60_000))).self?.dnsName ?? '';
      browser = await openBrowser({
        prefix: machine('phone').prefix,
        hosts: { [desk]: machine('desk').ip4, laptop: machine('laptop').ip4 },
      });
      process.stdout.write(`chromium ${browser.version} on phone\n`);
      phone = await browser.page({ viewport: { width: 360, height: 740 }, hasTouch: true });
    },
  );
  const { machine } = stage;
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
    ntfyOnDesk?.close();
    await ntfy?.close();
    await temp.close();
  });
  beforeEach(needBrowser);

  /** Starts a turn in a new session, as a user of opencode does. */
  async function startTurn(title: string, text: string): Promise<string> {
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
  const untilNotified = (words: RegExp): Promise<NtfyMessage> =>
    until(`a notification of ${words}`, () =>
      ntfy.messages.find(({ title, message }) => words.test(`${title} ${message}`)),
    );
  const untilAnswered = (message: string, output: string): Promise<void> =>
    phone.getByText(expectedReply(message, output)).first().waitFor();

  it('a notification shows the command of a permission request; one tap opens the request, and a second one answers it', async () => {
    const message = 'bash: echo from afar';
    const session = await startTurn('Deploy the site', message);
    const requested = await untilNotified(/echo from afar/);
    expect(requested).toMatchObject({
      title: expect.stringContaining('Deploy the site') as string,
      click: expect.stringMatching(new RegExp(`^http://desk[^/]*:${NODE_PORT}/#/s/[^/]+/${session}/per_`)) as string,
    });
    await phone.goto(requested.click ?? '');
    await phone.locator('.ask').getByText('echo from afar').first().waitFor();
    await phone.getByRole('button', { name: 'Allow once' }).click();
    await untilAnswered(message, 'from afar');
    const settled = await until('the notification to be replaced', () => {
      const shown = ntfy.shown.get(requested.sequence_id ?? '');
      return shown === requested ? undefined : shown;
    });
    expect(settled.priority).toBe(1);
  });

  it('the page of one machine shows the others live, and a rejection with a reason reaches the agent', async () => {
    await phone.goto(`http://laptop:${NODE_PORT}/`);
    await phone.getByText('Deploy the site').first().waitFor();
    const message = 'bash: rm -rf build';
    await startTurn('Clean up', message);
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
