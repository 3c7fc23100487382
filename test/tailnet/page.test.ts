import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { PAGE_PREFIX } from '../../src/page/contract.ts';
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
  });
  afterAll(() => stage?.close());
  beforeEach(needTailnet);

  it('settles what an agent on a third machine asks for, by the address of the first', async () => {
    const { url } = instances.get('box') ?? { url: '' };
    const [phone] = [machine('phone')];
    expect((await request(phone, originOf(machine('desk')), { headers: browser() })).text).toContain('<!doctype html>');
    const made = await request(phone, `${url}/session`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
    });
    const { id: session }: { id: string } = JSON.parse(made.text);
    const parts = [{ type: 'text', text: 'bash: echo permitted' }];
    await request(phone, `${url}/session/${session}/prompt_async`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ parts }),
    });
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
