import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { type McpChild, startMcpChild, type ToolCall } from '../../rig/programs/mcp-child.ts';
import { announce } from '../../rig/announce.ts';
import { type FakeOpencode2, startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { startPreview } from '../../rig/opencode/opencode-preview.ts';
import { type ScriptedModel, startScriptedModel } from '../../rig/model/scripted-model.ts';
import { tempDir } from '../../rig/temp.ts';
import { openStage } from '../stage.ts';

/** An opencode of one generation, and MCP servers that find it. */
export interface Ground extends AsyncDisposable {
  readonly model: Pick<ScriptedModel, 'waitForGate' | 'release'>;
  /** The name of its instance. */
  readonly instance: string;
  /** A server; all share one state directory. */
  server(): Promise<McpChild>;
  /** The user's messages in a session, in order, from opencode itself. */
  prompts(sessionId: string): Promise<readonly string[]>;
  /** SIGKILL and a restart. */
  crash(): Promise<void>;
}

export const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

export async function openOpencode1(): Promise<Ground> {
  const stage = await openStage();
  const state = tempDir('generations');
  const opencode = await stage.opencode();
  await stage.register('worker', opencode);
  return {
    model: stage.model,
    instance: 'worker',
    server: () => stage.server({ env: { XDG_STATE_HOME: state.path } }),
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
  announce(preview);
  // A directory is known by its sessions.
  await preview.json('POST', '/api/session', { location: { directory: preview.directory } });
  return await serviceGround(preview, model, preview.directory, async () => {
    await preview.close();
    await model.close();
  });
}

/** The fake of OpenCode 2.1. */
export async function openFake(): Promise<Ground> {
  const { fake, directories, close } = await openFakeService(['project']);
  const { project } = directories;
  await fake.json('POST', '/api/session', { location: { directory: project } });
  return await serviceGround(fake, fake.model, project, close);
}

interface FakeService<Name extends string> {
  readonly fake: FakeOpencode2;
  /** Its directories, each with a README.md. */
  readonly directories: Readonly<Record<Name, string>>;
  close(): Promise<void>;
}

/** A fake of OpenCode 2.1 as the service of a home of its own. */
export async function openFakeService<Name extends string>(names: readonly Name[]): Promise<FakeService<Name>> {
  const home = tempDir('fake-service');
  const paths = names.map((name) => join(home.path, name));
  const files = { 'README.md': 'Read me.\n' };
  const fake = await startFakeOpencode2({
    home: home.path,
    directories: Object.fromEntries(paths.map((path) => [path, files])),
  });
  const stateDir = join(home.path, '.local', 'state', 'opencode');
  await mkdir(stateDir, { recursive: true });
  await fake.register(stateDir);
  return {
    fake,
    directories: Object.fromEntries(names.map((name, index) => [name, paths[index]])) as Record<Name, string>,
    async close() {
      await fake.close();
      await home.close();
    },
  };
}

async function serviceGround(
  service: Pick<FakeOpencode2, 'home' | 'json' | 'kill9' | 'restart'>,
  model: Ground['model'],
  directory: string,
  close: () => Promise<void>,
): Promise<Ground> {
  const servers: McpChild[] = [];
  const server = async (): Promise<McpChild> => {
    const child = await startMcpChild({
      args: ['--transport', 'service', '--health-timeout-ms', '15000'],
      env: { HOME: service.home },
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
