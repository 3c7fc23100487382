import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { holdersOf, kernelAddress, readSocketTable } from '../../../src/base/socket-table.ts';
import { SESSION_TEMPLATE, uriOf } from '../../../src/mcp/features/resource-uri.ts';
import { announce } from '../../rig/announce.ts';
import { type McpChild, startMcpChild } from '../../rig/programs/mcp-child.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { type Preview, startPreview } from '../../rig/opencode/opencode-preview.ts';
import { createProject } from '../../rig/opencode/opencode-sandbox.ts';
import { type ScriptedModel, startScriptedModel } from '../../rig/model/scripted-model.ts';
import { runShell, shellEnv } from '../../rig/programs/shell-command.ts';
import { data } from '../generations/grounds.ts';

describe.skipIf(isMissing(PREVIEW_OPENCODE))('the preview as the user’s service', () => {
  let model: ScriptedModel;
  let preview: Preview;
  let server: McpChild;
  const directories: Record<'app' | 'other', string> = { app: '', other: '' };
  const sessions: Record<'app' | 'other', string> = { app: '', other: '' };

  beforeAll(async () => {
    model = await startScriptedModel();
    preview = await startPreview({ model, registered: true });
    announce(preview);
    for (const name of ['app', 'other'] as const) {
      const directory = join(preview.home, name);
      await createProject(directory);
      const plugins = join(directory, '.opencode', 'plugin');
      await mkdir(plugins, { recursive: true });
      // Runs when the directory is loaded.
      const source = `import { writeFileSync } from 'node:fs';\nwriteFileSync(${JSON.stringify(markOf(directory))}, 'ran');\nexport default async () => ({});\n`;
      await writeFile(join(plugins, 'canary.js'), source);
      directories[name] = directory;
      const { data: made } = await preview.json<{ data: { id: string } }>('POST', '/api/session', {
        location: { directory },
      });
      sessions[name] = made.id;
    }
    server = await startMcpChild({
      args: ['--transport', 'service', '--health-timeout-ms', '15000'],
      env: { HOME: preview.home },
    });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await preview?.close();
    await model?.close();
  });

  const markOf = (directory: string): string => join(directory, 'canary-ran');
  const hasRun = (name: 'app' | 'other'): boolean => existsSync(markOf(directories[name]));
  const rows = async (tool = 'instances'): Promise<readonly { name: string; directory?: string; state: string }[]> =>
    (data(await server.call(tool, {})) as { instances: { name: string; directory?: string; state: string }[] })
      .instances;
  const nameOf = async (directory?: string): Promise<string> =>
    (await rows('list_instances')).find((one) => one.directory === directory)?.name ?? 'not listed';

  test('tools that list load no directory, and show idle sessions as unknown', async () => {
    await rows();
    await rows('refresh_instances');
    for (const instance of [await nameOf(), await nameOf(directories.app), await nameOf(directories.other)]) {
      await server.call('get_status', { instance });
      const listed = await server.call('list_sessions', { instance });
      const { sessions: found } = data(listed) as { sessions: { state: string }[] };
      expect(new Set(found.map(({ state }) => state))).toEqual(new Set(['unknown']));
    }
    await server.call('wait', { timeout_seconds: 1 });
    expect([hasRun('app'), hasRun('other')]).toEqual([false, false]);
  });

  test('resources, completion, prompts and the shell load no directory', async () => {
    const { client } = server;
    const { resources } = await client.listResources();
    const instances = [await nameOf(), await nameOf(directories.app)];
    expect(resources.map(({ name }) => name)).toEqual(expect.arrayContaining(instances));
    const template = { type: 'ref/resource', uri: SESSION_TEMPLATE } as const;
    const env = { ...shellEnv(preview.home, join(preview.home, 'no-registry')), TRANSPORT: 'service' };
    for (const instance of instances) {
      const { contents } = await client.readResource({ uri: uriOf({ instance }) });
      expect(JSON.stringify(contents)).toContain(sessions.app);
      const context = { arguments: { instance } };
      const { completion } = await client.complete({ ref: template, argument: { name: 'id', value: '' }, context });
      expect(completion.values).toContain(sessions.app);
      await client.getPrompt({ name: 'brief_all' });
      const shell = runShell(['sessions', instance], env);
      expect(await shell.ended, shell.stderr()).toBe(0);
      expect(shell.stdout()).toContain(sessions.app);
    }
    const listed = runShell(['list', '--json'], env);
    expect(await listed.ended, listed.stderr()).toBe(0);
    expect(listed.stdout()).toContain(directories.other);
    expect([hasRun('app'), hasRun('other')]).toEqual([false, false]);
  });

  test('the error for a session whose directory is gone names the cause', async () => {
    const directory = join(preview.home, 'gone');
    await preview.json('POST', '/api/session', { location: { directory } });
    await rows('refresh_instances');
    const sent = await server.call('send', { instance: await nameOf(directory), message: 'echo: x' });
    expect(sent.text).toMatch(/cannot load the session's directory: it may be gone.*nothing was sent/);
  });

  test('a message loads only the directory of its session', async () => {
    const instance = await nameOf(directories.app);
    const sent = await server.call('send', { instance, session_id: sessions.app, message: 'echo: here' });
    expect(data(sent), sent.text).toMatchObject({ outcome: 'completed', text: 'here' });
    expect([hasRun('app'), hasRun('other')]).toEqual([true, false]);
  });

  test('undone messages are found by their order: a queued prompt has an older id than the answer before it', async () => {
    const [instance, session_id] = [await nameOf(directories.app), sessions.app];
    await server.call('send', { instance, session_id, message: 'echo: kept' });
    const messageID = 'msg_000000000001waitedinthequeue';
    const path = `/api/session/${session_id}`;
    await preview.json('POST', `${path}/prompt`, {
      id: messageID,
      prompt: { text: 'echo: taken back' },
      delivery: 'queue',
    });
    await server.call('wait', { instances: [instance], session_id });
    await preview.json('POST', `${path}/revert/stage`, { messageID });
    const { messages } = data(await server.call('read', { instance, session_id, message_limit: 4 })) as {
      messages: { id: string; text: string; state: string }[];
    };
    expect(messages.map(({ text, state }) => [text, state])).toEqual([
      ['echo: kept', 'complete'],
      ['kept', 'complete'],
      ['echo: taken back', 'undone'],
      ['taken back', 'undone'],
    ]);
    const one = { instance, session_id, message_id: messages[1]?.id };
    expect(data(await server.call('read', one))).toMatchObject({ messages: [{ state: 'complete' }] });
    expect(data(await server.call('wait', { instances: [instance], session_id }))).toMatchObject({
      turns: [{ text: 'kept' }],
    });
    // As with other generations, the next message commits the revert.
    await server.call('send', { instance, session_id, message: 'echo: instead' });
    expect(data(await server.call('wait', { instances: [instance], session_id }))).toMatchObject({
      turns: [{ text: 'instead' }],
    });
    expect((await server.call('read', { instance, session_id })).text).not.toContain('undone');
  });

  test('two directories work side by side, each with its own requests', async () => {
    const names = { app: await nameOf(directories.app), other: await nameOf(directories.other) };
    await Promise.all(
      (['app', 'other'] as const).map((one) =>
        server.call('send', { instance: names[one], session_id: sessions[one], message: `bash: echo ${one}` }),
      ),
    );
    const waiting = (await rows()).filter(({ state }) => state === 'waiting').map(({ name }) => name);
    expect(waiting.toSorted()).toEqual([names.app, names.other].toSorted());
    const whole = await nameOf();
    expect((await server.call('respond', { instance: whole, reply: 'once' })).text).toContain('waits for 2 things');
    for (const one of ['app', 'other'] as const)
      expect(data(await server.call('respond', { instance: names[one], reply: 'once' }))).toMatchObject({
        outcome: 'completed',
        text: expect.stringContaining(one),
      });
  });

  test('a running turn connects only to this machine', async () => {
    const to = { instance: await nameOf(directories.app), session_id: sessions.app, async: true };
    await server.call('send_message', { ...to, message: 'gate connected: done' });
    await model.waitForGate('connected');
    const remotes: string[] = [];
    for (const { listening, remote, inode } of (await readSocketTable()) ?? []) {
      if (listening || inode === '0') continue;
      if ((await holdersOf(inode)).some(({ pid }) => pid === preview.pid))
        remotes.push(`${remote.address}:${remote.port}`);
    }
    model.release('connected');
    await server.call('wait', { instances: [to.instance], session_id: to.session_id });
    const here = kernelAddress('127.0.0.1');
    expect(remotes).toContain(`${here}:${new URL(model.url).port}`);
    expect(remotes.filter((remote) => !remote.includes(here))).toEqual([]);
  });

  test('an instance with a wrong password is shown as a locked OpenCode 2', async () => {
    const config = join(preview.home, 'config.json');
    const instances = [{ name: 'wrong', url: preview.url, password: 'not it' }];
    await writeFile(config, JSON.stringify({ instances }), { mode: 0o600 });
    await using other = await startMcpChild({ args: ['--transport', 'static', '--config', config] });
    const [row] = (data(await other.call('instances', {})) as { instances: Record<string, unknown>[] }).instances;
    expect(row).toMatchObject({ state: 'locked', reason: expect.stringContaining('this is an OpenCode 2') });
  });

  test('a session that runs in one server gets no second turn from another server on the same store', async () => {
    // No service of its own: the file names the first.
    const second = await startPreview({ home: preview.home });
    try {
      const config = join(preview.home, 'second.json');
      const instances = [{ name: 'second', url: second.url, password: second.password }];
      await writeFile(config, JSON.stringify({ instances }), { mode: 0o600 });
      await using both = await startMcpChild({
        args: ['--transport', 'service,static', '--config', config, '--health-timeout-ms', '15000'],
        env: { HOME: preview.home },
      });
      await both.call('instances', {});
      const to = { session_id: sessions.app, async: true, message: 'gate first: done' };
      await both.call('send_message', { instance: await nameOf(directories.app), ...to });
      await model.waitForGate('first');
      const refused = await both.call('send', {
        instance: 'second',
        session_id: sessions.app,
        message: 'echo: beside it',
      });
      expect(refused.text).toContain('nothing was sent');
      model.release('first');
    } finally {
      await second.close();
    }
  });
});
