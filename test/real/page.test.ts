import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { runService, SELF, CAPABILITY } from '../node/stage.ts';
import { browser, COLLEAGUE, type Line, type Lines, type PageAnswer, type PageStage } from '../page/stage.ts';
import { announce } from '../rig/announce.ts';
import { MemoryLocalApi, tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { isMissing, PINNED_OPENCODE, PREVIEW_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { startPreview } from '../rig/opencode/opencode-preview.ts';
import { createRealSession } from '../rig/opencode/real-session.ts';
import { openRegistry } from '../rig/registry.ts';
import { startScriptedModel } from '../rig/model/scripted-model.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { openStage } from './stage.ts';

interface Driven {
  readonly page: Pick<PageStage, 'call' | 'post' | 'stream'>;
  readonly session: string;
}

/** A real opencode 1 with a password, behind the node service. */
async function opencode1(): Promise<Driven> {
  const stage = await openStage();
  onTestFinished(() => stage.close());
  const opencode = await stage.opencode({ password: 'pa55word-of-the-opencode' });
  const registered = { name: 'real', port: opencode.port, cwd: opencode.directory, id: 'real-instance' };
  await stage.registry.add(registered, { password: 'pa55word-of-the-opencode' });
  const { id } = await createRealSession(opencode, 'Driven from the page');
  return { page: await serve(stage.registry.path), session: id };
}

/** The preview of OpenCode 2 as the service of this user. */
async function preview(): Promise<Driven> {
  const temp = tempDir('opencode-mcp-page');
  const model = await startScriptedModel();
  const service = await startPreview({ model, registered: true });
  onTestFinished(async () => {
    await service.close();
    await model.close();
    await temp.close();
  });
  announce(service);
  const { directory } = service;
  const { data } = await service.json<{ data: { id: string } }>('POST', '/api/session', { location: { directory } });
  const registry = await openRegistry(join(temp.path, 'registry'));
  return { page: await serve(registry.path, service.stateDir), session: data.id };
}

async function serve(registry: string, opencodeStateDir?: string): Promise<Driven['page']> {
  const api = new MemoryLocalApi(tailnetNode({ id: 'self', addresses: [SELF] }));
  const phone = tailnetNode({ id: 'phone', addresses: [COLLEAGUE], userId: 'user-cleo' });
  api.join(phone, whoisOf(phone, 'cleo@example.com', { [CAPABILITY]: [{ role: 'drive' }] }));
  const node = await runService(registry, api, { ...(opencodeStateDir !== undefined && { opencodeStateDir }) });
  onTestFinished(() => node.service.close());
  await until('the service to listen', () => node.service.addresses.length > 0);
  await until('the instance', async () => (await node.instances.list()).length > 0);
  return browser({ host: SELF, port: node.port }, `http://${SELF}:${node.port}`);
}

const contains = (line: Line, text: string): boolean => JSON.stringify(line).includes(text);
const asksIn = (line: Line): readonly Line[] => (line['kind'] === 'asks' ? (line['asks'] as readonly Line[]) : []);

describe.each([
  ['opencode 1', PINNED_OPENCODE, opencode1],
  ['the preview of OpenCode 2', PREVIEW_OPENCODE, preview],
] as const)('%s from the page', (_, program, start) => {
  test.skipIf(isMissing(program))(
    'gets a message, a permission, an answer and a stop, and the page shows the effect of each',
    async () => {
      const { page, session } = await start();
      await using fleet = await page.stream('v1/fleet');
      const { instances } = await fleet.find(
        'the instance',
        (line) => (line['instances'] as readonly Line[]).length > 0,
      );
      const [{ name: instance } = {}] = instances as readonly { readonly name: string }[];
      if (instance === undefined) throw new Error('no instance');
      const where = { instance, session };
      const query = `instance=${encodeURIComponent(instance)}&session=${session}`;
      await using lines = await page.stream(`v1/session?${query}`);
      await lines.find('the session', (line) => line['kind'] === 'asks');
      let sent = 0;
      const send = (message: string): Promise<PageAnswer> =>
        page.post('send', { ...where, message, requestId: `message-${(sent += 1)}` });

      expect(await send('bash: echo permitted')).toMatchObject({ status: 200, json: { session } });
      const permission = await ask(lines, 'permission');
      // The preview shows the command only as a pattern.
      expect(permission).toMatchObject({ permission: 'bash', canAllow: true });
      expect(JSON.stringify(permission)).toContain('"echo permitted"');
      await fleet.find('the waiting request', (line) => contains(line, String(permission['id'])));
      const allow = { ...where, request: permission['id'], reply: 'once' };
      expect(await page.post('respond', allow)).toMatchObject({ status: 200, json: { done: true } });
      expect(await page.post('respond', allow)).toMatchObject({ status: 200, json: { done: false, gone: true } });
      await lines.find(
        'the answer',
        (line) =>
          line['kind'] !== 'asks' && ['permitted', '"done":true', 'assistant'].every((one) => contains(line, one)),
      );
      await settled(lines);

      expect(await send('ask: Which color? | Red | Blue')).toMatchObject({ status: 200 });
      const question = await ask(lines, 'question');
      expect(question).toMatchObject({
        questions: [
          {
            question: expect.stringContaining('Which color?') as string,
            options: [{ label: 'Red' }, { label: 'Blue' }],
          },
        ],
      });
      const answer = { ...where, request: question['id'], answers: [['Blue']] };
      expect(await page.post('respond', answer)).toMatchObject({ status: 200, json: { done: true } });
      await settled(lines);

      expect(await send('slow 20 100: counts and counts')).toMatchObject({ status: 200 });
      await lines.find('text while it is written', ({ kind, text }) => kind === 'text' && text !== '');
      expect(await page.post('abort', where)).toMatchObject({
        status: 200,
        json: { text: expect.stringContaining('Stopped') as string },
      });
      await lines.find('that it was stopped', ({ kind, state }) => kind === 'state' && state === 'interrupted');
      const changes = await page.call(`${PAGE_PREFIX}v1/changes?${query}`);
      expect([200, 422]).toContain(changes.status);
    },
  );
});

async function ask(lines: Lines, kind: string): Promise<Line> {
  const found = await lines.find(`a ${kind}`, (line) => asksIn(line).some((one) => one['kind'] === kind));
  const [request] = asksIn(found);
  if (request === undefined) throw new Error(`no ${kind}`);
  return request;
}

async function settled(lines: Lines): Promise<void> {
  await until('it to be idle', () => lines.all.findLast(({ kind }) => kind === 'state')?.['state'] === 'idle');
}
