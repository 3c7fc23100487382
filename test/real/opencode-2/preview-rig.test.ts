import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { holdersOf, kernelAddress, readSocketTable } from '../../../src/base/socket-table.ts';
import { announce } from '../../rig/announce.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode-binaries.ts';
import { startPreview, type Preview } from '../../rig/opencode-preview.ts';
import { tapServerEvents, type ServerEvent, type ServerEventTap } from '../../rig/opencode-2/event-tap.ts';
import { processesIn } from '../../rig/processes.ts';
import { startScriptedModel, type ScriptedModel } from '../../rig/scripted-model.ts';
import { until } from '../../rig/wait.ts';

interface Message {
  readonly id: string;
  readonly type: string;
  readonly text?: string;
  readonly finish?: string;
  readonly error?: { readonly message: string };
  readonly time: { readonly completed?: number };
  readonly content?: readonly { readonly type: string; readonly text?: string }[];
}

const missing = isMissing(PREVIEW_OPENCODE);

/** Tests the rig of the preview, on which other suites rely, against the real program. */
describe.skipIf(missing)('the preview of OpenCode 2', () => {
  let model: ScriptedModel;
  let preview: Preview;
  let tap: ServerEventTap;

  beforeAll(async () => {
    model = await startScriptedModel();
    preview = await startPreview({ model });
    tap = await tapServerEvents(preview);
    announce(preview);
  });
  afterAll(async () => {
    await tap?.close();
    await preview?.close();
    await model?.close();
  });

  const open = async (): Promise<string> => {
    const body = { location: { directory: preview.directory } };
    return (await preview.json<{ data: { id: string } }>('POST', '/api/session', body)).data.id;
  };
  const prompt = (session: string, text: string, extra: object = {}): Promise<{ readonly data: { id: string } }> =>
    preview.json('POST', `/api/session/${session}/prompt`, { prompt: { text }, delivery: 'queue', ...extra });
  /** Oldest first. */
  const messages = async (session: string): Promise<readonly Message[]> =>
    (await preview.json<{ data: Message[] }>('GET', `/api/session/${session}/message?order=asc`)).data;
  const active = async (): Promise<readonly string[]> =>
    Object.keys((await preview.json<{ data: object }>('GET', '/api/session/active')).data);
  const idle = (session: string): Promise<unknown> =>
    until(`${session} to be idle`, async () => !(await active()).includes(session));
  const textOf = (message: Message | undefined): string =>
    (message?.content ?? []).map((part) => (part.type === 'text' ? part.text : '')).join('');
  /** Without repeated deltas, whose number depends on the model. */
  const shape = (events: readonly ServerEvent[]): string[] =>
    events.map(({ type }) => type).filter((type, index, all) => !type.endsWith('.delta') || all[index - 1] !== type);

  it('streams a turn from its admission to its end, and then is no longer active', async () => {
    const session = await open();
    await prompt(session, 'echo: one two three', { id: 'msg_000000000001AAAAAAAAAAAAAA' });
    const end = await tap.waitFor('session.next.step.ended', ({ data }) => data.sessionID === session);
    expect(end.data).toMatchObject({ finish: 'stop' });
    await idle(session);
    expect(tap.events[0]).toMatchObject({ type: 'server.connected' });
    expect(tap.comments[0]?.trim()).toBe('heartbeat');
    const events = tap.of(session);
    expect(shape(events)).toEqual([
      'session.created',
      'session.next.prompt.admitted',
      'session.next.prompted',
      'session.next.step.started',
      'session.next.text.started',
      'session.next.text.delta',
      'session.next.text.ended',
      'session.next.step.ended',
    ]);
    expect(events.flatMap(({ durable }) => (durable ? [durable.seq] : []))).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const deltas = events.filter(({ type }) => type === 'session.next.text.delta').map(({ data }) => data['delta']);
    expect(deltas).toEqual(['one ', 'two ', 'three']);
    const [asked, answer] = await messages(session);
    expect(asked).toMatchObject({ id: 'msg_000000000001AAAAAAAAAAAAAA', type: 'user', text: 'echo: one two three' });
    expect(answer).toMatchObject({ type: 'assistant', finish: 'stop', time: { completed: expect.any(Number) } });
    expect(textOf(answer)).toBe('one two three');
  });

  it('asks for permission, and continues when it is given', async () => {
    const session = await open();
    await prompt(session, 'bash: printf "from the shell"');
    const asked = await tap.waitFor('permission.v2.asked', ({ data }) => data.sessionID === session);
    expect(asked.data).toMatchObject({ action: 'bash', resources: ['printf "from the shell"'] });
    expect(await preview.json('GET', `/api/session/${session}/permission`)).toEqual({ data: [asked.data] });
    expect(await active()).toContain(session);
    const path = `/api/session/${session}/permission/${String(asked.data['id'])}/reply`;
    expect((await preview.api(path, { method: 'POST', body: { reply: 'once' } })).status).toBe(204);
    await tap.waitFor('session.next.step.ended', ({ data }) => data.sessionID === session && data['finish'] === 'stop');
    await idle(session);
    const types = shape(tap.of(session));
    expect(types.slice(3)).toEqual([
      'session.next.step.started',
      'session.next.tool.input.started',
      'session.next.tool.input.delta',
      'session.next.tool.input.ended',
      'session.next.tool.called',
      'permission.v2.asked',
      'permission.v2.replied',
      'session.next.tool.success',
      'session.next.step.ended',
      'session.next.step.started',
      'session.next.text.started',
      'session.next.text.delta',
      'session.next.text.ended',
      'session.next.step.ended',
    ]);
    expect(textOf((await messages(session)).at(-1))).toContain('from the shell');
    expect((await preview.api(path, { method: 'POST', body: { reply: 'once' } })).status).toBe(404);
  });

  it('refuses a known id with another text', async () => {
    const session = await open();
    const body = { id: 'msg_000000000002AAAAAAAAAAAAAA', delivery: 'queue' };
    const post = async (text: string): Promise<number> =>
      (await preview.api(`/api/session/${session}/prompt`, { method: 'POST', body: { ...body, prompt: { text } } }))
        .status;
    expect([await post('echo: one'), await post('echo: other')]).toEqual([200, 409]);
    await idle(session);
  });

  it('leaves a turn open that kill -9 cut, and does not resume it', async () => {
    const session = await open();
    await prompt(session, 'gate-mid killed: half |whole');
    await tap.waitFor('session.next.text.delta', ({ data }) => data.sessionID === session);
    const { pid, port, password } = preview;
    await preview.kill9();
    expect(preview.running).toBe(false);
    await preview.restart();
    expect(preview.pid).not.toBe(pid);
    expect(preview).toMatchObject({ port, password });
    await tap.close();
    tap = await tapServerEvents(preview);
    expect(await active()).toEqual([]);
    const [, answer] = await messages(session);
    expect(answer).not.toHaveProperty('finish');
    expect(answer?.time).not.toHaveProperty('completed');
    expect(model.turns('gate-mid killed: half |whole')).toBe(1);
  });

  it('connects to this machine only while a turn runs', async () => {
    const session = await open();
    await prompt(session, 'gate connected: done');
    await model.waitForGate('connected');
    const remotes: string[] = [];
    for (const { listening, remote, inode } of (await readSocketTable()) ?? []) {
      if (listening || inode === '0') continue;
      if ((await holdersOf(inode)).some(({ pid }) => pid === preview.pid))
        remotes.push(`${remote.address}:${remote.port}`);
    }
    model.release('connected');
    await idle(session);
    const here = kernelAddress('127.0.0.1');
    expect(remotes).toContain(`${here}:${new URL(model.url).port}`);
    expect(remotes.filter((remote) => !remote.includes(here))).toEqual([]);
  });
});

describe.skipIf(missing)('a preview that clients of its home can find', () => {
  it.each([true, 'service'] as const)('writes its file and password, registered: %s', async (registered) => {
    await using preview = await startPreview({ registered });
    const fileName = join(preview.stateDir, 'server.json');
    const read = async (): Promise<unknown> => JSON.parse(await readFile(fileName, 'utf8'));
    const fields = { version: preview.version, url: preview.url, pid: preview.pid };
    expect(await read()).toEqual({ id: expect.any(String), ...fields });
    expect((await stat(join(preview.stateDir, 'password'))).mode & 0o777).toBe(0o600);
    expect(await preview.json('GET', '/api/health')).toEqual({ healthy: true });

    const { pid, password } = preview;
    await preview.kill9();
    expect(await read()).toMatchObject({ pid });
    await preview.restart();
    expect(preview.pid).not.toBe(pid);
    expect(preview.password).toBe(password);
    expect(await read()).toMatchObject({ pid: preview.pid });
    await preview.stop();
    expect(existsSync(fileName)).toBe(false);
  });

  it('takes a given password, and shares sessions with another one of the same home', async () => {
    await using first = await startPreview({ password: 'correct horse' });
    const { data } = await first.json<{ data: { id: string } }>('POST', '/api/session', {});
    await using second = await startPreview({ home: first.home, directory: first.directory });
    expect(second.password).toBe('correct horse');
    expect(await second.json('GET', '/api/session')).toMatchObject({ data: [{ id: data.id }] });
    expect((await fetch(`${first.url}/api/session`)).status).toBe(401);
  });

  it('leaves no process behind', async () => {
    const preview = await startPreview({ registered: 'service' });
    const folder = preview.env['TMPDIR'] ?? '';
    expect(await processesIn(folder)).toEqual([preview.pid]);
    await preview.close();
    expect(await processesIn(folder)).toEqual([]);
  });
});
