import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import type { McpChild, McpChildOptions, ToolCall } from '../../rig/mcp-child.ts';
import { startMcpChild } from '../../rig/mcp-child.ts';
import type { Opencode } from '../../rig/opencode.ts';
import { startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { startPreview } from '../../rig/opencode-preview.ts';
import { type ScriptedModel, startScriptedModel } from '../../rig/scripted-model.ts';
import { tempDir } from '../../rig/temp.ts';
import { openStage } from '../stage.ts';

/** An opencode of one generation, and MCP servers that find it. */
export interface Ground extends AsyncDisposable {
  readonly model: Pick<ScriptedModel, 'waitForGate' | 'release'>;
  /** The name of its instance. */
  readonly instance: string;
  readonly directory: string;
  /** A server; all share one state directory. */
  server(options?: McpChildOptions): Promise<McpChild>;
  /** The user's messages in a session, in order, from opencode itself. */
  prompts(sessionId: string): Promise<readonly string[]>;
  /** SIGKILL and a restart. */
  crash(): Promise<void>;
}

export const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

export async function openOpencode1(): Promise<Ground> {
  const stage = await openStage();
  const state = tempDir('generations');
  const opencode: Opencode = await stage.opencode();
  await stage.register('worker', opencode);
  return {
    model: stage.model,
    instance: 'worker',
    directory: opencode.directory,
    server: (options = {}) => stage.server({ ...options, env: { XDG_STATE_HOME: state.path, ...options.env } }),
    async prompts(sessionId) {
      interface Message {
        readonly info: { readonly role: string };
        readonly parts: readonly { readonly text?: string }[];
      }
      const all = await opencode.json<readonly Message[]>('GET', `/session/${sessionId}/message`);
      return all
        .filter(({ info }) => info.role === 'user')
        .map(({ parts }) => parts.map(({ text = '' }) => text).join(''));
    },
    async crash() {
      await opencode.kill();
      await opencode.restart();
    },
    async [Symbol.asyncDispose]() {
      await stage.close();
      await state.close();
    },
  };
}

/** The preview of OpenCode 2 as the user's service. */
export async function openPreview(): Promise<Ground> {
  const model = await startScriptedModel();
  const preview = await startPreview({ model, registered: true });
  process.stdout.write(`${preview.describe()}\n`);
  // A directory is known by its sessions.
  await preview.json('POST', '/api/session', { location: { directory: preview.directory } });
  return await serviceGround(preview, model, preview.directory, async () => {
    await preview.close();
    await model.close();
  });
}

/** The fake of OpenCode 2.1. */
export async function openFake(): Promise<Ground> {
  const home = tempDir('generations-fake');
  const directory = join(home.path, 'project');
  const fake = await startFakeOpencode2({
    home: home.path,
    directories: { [directory]: { 'README.md': 'Read me.\n' } },
  });
  const stateDir = join(home.path, '.local', 'state', 'opencode');
  await mkdir(stateDir, { recursive: true });
  await fake.register(stateDir);
  await fake.json('POST', '/api/session', { location: { directory } });
  const service = {
    home: home.path,
    json: fake.json.bind(fake),
    kill9: fake.kill9.bind(fake),
    restart: () => fake.restart(),
  };
  return await serviceGround(service, fake.model, directory, async () => {
    await fake.close();
    await home.close();
  });
}

interface Service {
  readonly home: string;
  json<T>(method: string, path: string, body?: unknown): Promise<T>;
  kill9(): Promise<void>;
  restart(): Promise<void>;
}

async function serviceGround(
  service: Service,
  model: Ground['model'],
  directory: string,
  close: () => Promise<void>,
): Promise<Ground> {
  const servers: McpChild[] = [];
  const server: Ground['server'] = async (options = {}) => {
    const child = await startMcpChild({
      ...options,
      args: ['--transport', 'service', '--health-timeout-ms', '15000', ...(options.args ?? [])],
      env: { HOME: service.home, ...options.env },
    });
    servers.push(child);
    return child;
  };
  const first = await server();
  const { instances } = data(await first.call('instances', {})) as {
    instances: { name: string; directory?: string }[];
  };
  const instance = instances.find((one) => one.directory === directory)?.name ?? 'not listed';
  return {
    model,
    instance,
    directory,
    server,
    async prompts(sessionId) {
      interface Entry {
        readonly type: string;
        readonly text?: string;
      }
      const path = `/api/session/${sessionId}/message?order=asc&limit=200`;
      const { data: all } = await service.json<{ data: readonly Entry[] }>('GET', path);
      return all.filter(({ type }) => type === 'user').map(({ text = '' }) => text);
    },
    async crash() {
      await service.kill9();
      await service.restart();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((one) => one[Symbol.asyncDispose]()));
      await close();
    },
  };
}
