import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect } from 'vitest';

import {
  type CallOptions,
  type McpChild,
  type McpChildOptions,
  SERVER_SCRIPT,
  startMcpChild,
  type ToolCall,
} from '../rig/programs/mcp-child.ts';
import { isMissing, OPENCODES } from '../rig/opencode/opencode-binaries.ts';
import { type Opencode, type OpencodeOptions, startOpencode } from '../rig/opencode/opencode.ts';
import { type StoredMessage, textOf } from '../rig/opencode/real-session.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { type ScriptedModel, startScriptedModel } from '../rig/model/scripted-model.ts';
import { tempDir } from '../rig/temp.ts';

export type Data = Readonly<Record<string, unknown>>;

/** Its `send` waits as long as a cold opencode on a busy machine needs. */
export const CLAUDE_CODE = { clientInfo: { name: 'claude-code', version: '2.1.329' } };

/** A scripted model, a registry directory, and whatever real opencodes and servers a suite starts on them. */
export interface Stage extends AsyncDisposable {
  readonly model: ScriptedModel;
  readonly registry: Registry;
  /** Starts a real opencode and says which; not registered. */
  opencode(options?: OpencodeOptions): Promise<Opencode>;
  /** Registers an opencode under a name, reached at `port` (its own by default). */
  register(
    name: string,
    opencode: Opencode,
    extra?: { readonly port?: number; readonly id?: string; readonly password?: string },
  ): Promise<void>;
  /** Starts the built server on the registry. */
  server(options?: McpChildOptions): Promise<McpChild>;
  close(): Promise<void>;
}

export async function openStage(): Promise<Stage> {
  const temp = tempDir('opencode-mcp-stage');
  const model = await startScriptedModel();
  const registry = await openRegistry(`${temp.path}/registry`);
  const started: AsyncDisposable[] = [];

  async function close(): Promise<void> {
    // Servers and opencodes end side by side; the model last, which they may still talk to.
    await Promise.all(started.splice(0).map((one) => one[Symbol.asyncDispose]()));
    await model.close();
    await temp.close();
  }

  return {
    model,
    registry,
    async opencode(options = {}) {
      const opencode = await startOpencode({ model, ...options });
      started.push(opencode);
      // Which real component a suite drove.
      process.stdout.write(`${opencode.describe()}\n`);
      return opencode;
    },
    async register(name, opencode, { port = opencode.port, id, password } = {}) {
      await registry.add(
        {
          name,
          port,
          // A proxy's way must stay an instance of its own, not be proven another way to the same: the test is about the proxy.
          ...((port === opencode.port || id !== undefined) && { localPort: opencode.port }),
          cwd: opencode.directory,
          hostname: 'test-host',
          ...(id !== undefined && { id }),
        },
        password === undefined ? {} : { password },
      );
    },
    async server(options = {}) {
      const server = await startMcpChild({
        ...options,
        args: [
          '--registry-dir',
          registry.path,
          '--log-level',
          'debug',
          '--health-timeout-ms',
          '15000',
          ...(options.args ?? []),
        ],
      });
      started.push(server);
      return server;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** A file of a program in test/components. */
export const component = (path: string): string =>
  fileURLToPath(new URL(`../components/node_modules/${path}`, import.meta.url));

/** The built server on the registry, for the configuration of a client. */
export function serverCommand({ registry }: Stage): [string, ...string[]] {
  const settings = ['--registry-dir', registry.path, '--health-timeout-ms', '15000', '--mdns-interfaces', 'none'];
  return [process.execPath, SERVER_SCRIPT, ...settings];
}

/** The structured content of a call that succeeded. */
export function dataOf({ result, text }: ToolCall): Data {
  expect(result.isError, text).not.toBe(true);
  return result.structuredContent ?? {};
}

/** The text of a call that failed. */
export function refusalOf({ result, text }: ToolCall): string {
  expect(result.isError, text).toBe(true);
  return text;
}

/** The text that a client has shown when the result comes; a client may lose what comes right before the result. */
export function progressText({ progress }: ToolCall): string {
  return progress.map(({ message }) => message ?? '').join('');
}

/** What most suites drive: one opencode, registered as `worker`, and one server. */
export interface Worker {
  readonly stage: Stage;
  readonly opencode: Opencode;
  readonly server: McpChild;
  /** Calls a tool with `instance: 'worker'`, unless `args` name another. */
  readonly call: (tool: string, args?: Data, options?: CallOptions) => Promise<ToolCall>;
  /** As `call`, with the structured content. */
  readonly data: (tool: string, args?: Data) => Promise<Data>;
  /** As `call`, with the text of the error. */
  readonly refusal: (tool: string, args?: Data) => Promise<string>;
  /** Resolves with the id. */
  readonly newSession: (title?: string) => Promise<string>;
  /** The user's messages of a session, as stored. */
  readonly userTexts: (session: string) => Promise<string[]>;
}

/** Opens a worker for the tests of the surrounding suite, and closes it after them. */
export function useWorker(opencodeOptions: OpencodeOptions = {}, serverOptions: McpChildOptions = {}): Worker {
  let stage: Stage;
  let opencode: Opencode;
  let server: McpChild;
  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode(opencodeOptions);
    await stage.register('worker', opencode);
    server = await stage.server(serverOptions);
  });
  afterAll(() => stage?.close());

  const call: Worker['call'] = (tool, args, options) => server.call(tool, { instance: 'worker', ...args }, options);
  const data: Worker['data'] = async (tool, args) => dataOf(await call(tool, args));
  return {
    get stage() {
      return stage;
    },
    get opencode() {
      return opencode;
    },
    get server() {
      return server;
    },
    call,
    data,
    refusal: async (tool, args) => refusalOf(await call(tool, args)),
    async newSession(title) {
      const { session } = (await data('create_session', { title })) as { readonly session: { readonly id: string } };
      return session.id;
    },
    async userTexts(session) {
      const stored = await opencode.json<readonly StoredMessage[]>('GET', `/session/${session}/message`);
      return stored.filter(({ info }) => info.role === 'user').map(textOf);
    },
  };
}

/** A suite on the newest and on the oldest opencode of generation 1. */
export function onEachOpencode(name: string, suite: (binary: string) => void): void {
  for (const { name: which, binary } of OPENCODES)
    describe.skipIf(isMissing(binary))(`${name}, ${which}`, () => {
      suite(binary);
    });
}
