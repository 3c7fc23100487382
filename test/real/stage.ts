import { type McpChild, type McpChildOptions, startMcpChild } from '../rig/mcp-child.ts';
import { type Opencode, type OpencodeOptions, startOpencode } from '../rig/opencode.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { type ScriptedModel, startScriptedModel } from '../rig/scripted-model.ts';
import { tempDir } from '../rig/temp.ts';

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
