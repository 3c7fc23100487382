import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { needBrowser, openBrowser } from '../rig/browser.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { needTailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { until } from '../rig/wait.ts';
import { type Answer, connects, request } from './queries.ts';
import { grantToBob, NODE_PORT, openTailnetStage, originOf, type TailnetInstance, type TailnetStage } from './stage.ts';

/** Reads a stream until a line fits, and says that line; 20 s at most. */
const READ = `const [url, pattern, headers] = process.argv.slice(1);
const fits = new RegExp(pattern);
let rest = '';
const done = (text) => { console.log(text); process.exit(0); };
setTimeout(() => done('nothing fits: ' + rest.slice(0, 2000)), 20000);
require('node:http').get(url, { headers: JSON.parse(headers) }, (response) => {
  response.setEncoding('utf8').on('data', (text) => {
    const lines = (rest + text).split('\\n');
    rest = lines.pop();
    const found = lines.find((line) => fits.test(line));
    if (found !== undefined) done(found);
  }).on('end', () => done('ended ' + response.statusCode + ' ' + rest));
}).on('error', (error) => done(error.code));`;

/** A phone knows one address, and nothing else. */
describe('the page on a real tailnet', () => {
  let stage: TailnetStage;
  const instances = new Map<string, TailnetInstance>();
  const machine = (name: string): TailnetMachine => stage.tailnet.node(name);
  const browser = (): Readonly<Record<string, string>> => ({
    'user-agent': 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)',
    'x-opencode-mcp-page': '1',
    host: `desk:${NODE_PORT}`,
  });
  const pageOf = (path: string): string => originOf(machine('desk')) + PAGE_PREFIX + path;
  const line = (from: string, pattern: string): Promise<string> =>
    machine(from).exec([process.execPath, '-e', READ, pageOf('v1/fleet'), pattern, JSON.stringify(browser())]);
  const post = (from: string, name: string, body: object): Promise<Answer> =>
    request(machine(from), pageOf(`v1/${name}`), {
      method: 'POST',
      headers: { ...browser(), origin: `http://desk:${NODE_PORT}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });

  /** Begins a turn of a new session on box; its id. */
  const begin = async (text: string): Promise<string> => {
    const { url } = instances.get('box') ?? { url: '' };
    const call = (path: string, body: object): Promise<Answer> =>
      request(machine('phone'), url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    const { id }: { id: string } = JSON.parse((await call('/session', {})).text);
    await call(`/session/${id}/prompt_async`, { parts: [{ type: 'text', text }] });
    return id;
  };

  beforeAll(async () => {
    if (!canRunTailnet()) return;
    stage = await openTailnetStage({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'box', mode: 'tun' },
        { name: 'phone', mode: 'tun' },
        { name: 'guest', mode: 'tun', user: 'bob' },
      ],
    });
    for (const name of ['desk', 'box']) {
      // The page looks for instances by all sources.
      await stage.node(machine(name), NO_MULTICAST);
      instances.set(name, await stage.opencode(machine(name)));
    }
    await connects(machine('phone'), machine('desk'), NODE_PORT);
    await connects(machine('desk'), machine('box'), NODE_PORT);
    const { url = '' } = instances.get('box') ?? {};
    await until('box to forward to its instance', async () =>
      (await request(machine('phone'), `${url}/path`)).text.startsWith('{'),
    );
  });
  afterAll(() => stage?.close());
  beforeEach(needTailnet);

  it('settles what an agent on a third machine asks for, by the address of the first', async () => {
    const { url } = instances.get('box') ?? { url: '' };
    const [phone] = [machine('phone')];
    expect((await request(phone, originOf(machine('desk')), { headers: browser() })).text).toContain('<!doctype html>');
    const session = await begin('bash: echo permitted');
    const shown = JSON.parse(await line('phone', '"kind":"permission"')) as {
      readonly you: object;
      readonly sessions: readonly {
        readonly instance: string;
        readonly id: string;
        readonly waiting: readonly { readonly id: string }[];
      }[];
    };
    expect(shown.you).toMatchObject({ role: 'drive', all: true });
    const row = shown.sessions.find(({ id }) => id === session);
    expect(row).toMatchObject({
      instance: 'box-project',
      state: 'waiting',
      waiting: [{ text: 'bash "echo permitted"' }],
    });
    const answer = { instance: row?.instance, session, request: row?.waiting[0]?.id, reply: 'once' };
    expect(JSON.parse((await post('phone', 'respond', answer)).text)).toMatchObject({ done: true });
    expect(JSON.parse((await post('phone', 'respond', answer)).text)).toMatchObject({ done: false, gone: true });
    await until('the command to have run', async () =>
      (await request(phone, `${url}/session/${session}/message`)).text.includes('bash returned: permitted'),
    );
  });

  it('is settled in the browser of a phone, which shows what came of it', async (context) => {
    needBrowser(context);
    const hosts = { desk: machine('desk').ip4 };
    await using chromium = await openBrowser({ prefix: machine('phone').prefix, hosts });
    process.stdout.write(`chromium ${chromium.version}\n`);
    const page = await chromium.page({ viewport: { width: 360, height: 740 }, hasTouch: true });
    await page.goto(`http://desk:${NODE_PORT}/`);
    await page.locator('.group-needs > .quiet').waitFor();
    await begin('bash: echo by phone');
    await page.locator('.group-needs .row a').click();
    expect(await page.locator('.command').innerText()).toBe('echo by phone');
    await page.getByRole('button', { name: 'Allow once' }).click();
    await page.locator('.result').getByText('Allowed once.').waitFor();
    await page.getByText('bash returned: by phone').waitFor();
    await page.getByRole('link', { name: 'Back to all sessions' }).click();
    await page.locator('.group-needs > .quiet').waitFor();
  });

  it('shows a guest this machine alone, and does nothing for them', async () => {
    expect(JSON.parse(await line('guest', '.').then((text) => text.replace(/^ended 403 /, '')))).toMatchObject({
      error: expect.stringContaining('You appear to be bob') as string,
    });
    await stage.tailnet.setPolicy(grantToBob('read'));
    const shown = await until('the grant', async () => {
      const text = await line('guest', '"you"');
      return text.startsWith('{"at"') && text;
    });
    expect(JSON.parse(shown)).toMatchObject({
      you: { role: 'read', all: false },
      instances: [{ name: 'desk-project' }],
    });
    expect(await post('guest', 'abort', { instance: 'desk-project', session: 'ses_12345678' })).toMatchObject({
      status: 403,
      text: expect.stringContaining('you can look, and not act') as string,
    });
  });
});
