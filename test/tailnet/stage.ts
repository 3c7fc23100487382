import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { afterAll, beforeAll, beforeEach } from 'vitest';

import { CAPABILITY } from '../../src/node/access/admission.ts';
import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { type ConnectedChild, type ConnectedOptions, startConnected } from '../rig/programs/connected-child.ts';
import { type ForwardedPort, forwardInto } from '../rig/network/forwarded-port.ts';
import { type McpChild, SERVER_SCRIPT, startMcpChild } from '../rig/programs/mcp-child.ts';
import { PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox } from '../rig/opencode/opencode-sandbox.ts';
import { type Preview, startPreview } from '../rig/opencode/opencode-preview.ts';
import { type ScriptedModel, startScriptedModel } from '../rig/model/scripted-model.ts';
import {
  needTailnet,
  OPEN_POLICY,
  openTailnet,
  type Tailnet,
  type TailnetMachine,
  type TailnetOptions,
} from '../rig/network/tailnet.ts';
import { canRunTailnet } from '../rig/network/tailnet-programs.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { connects } from './queries.ts';

/** The default port of the node service. */
export const NODE_PORT = 4095;

/** The default port on which a machine without a node service is asked for an opencode. */
export const BARE_PORT = 4096;

/** Its sends wait long enough for an opencode that starts on a busy machine. */
const CLAUDE_CODE = { name: 'claude-code', version: '2.1.329' };

type Environment = Readonly<Record<string, string>>;

/** `opencode-mcp node`, running. */
export interface NodeChild {
  readonly pid: number;
  readonly exited: Promise<unknown>;
  /** Null while it runs. */
  readonly exitCode: () => number | null;
  /** Its log so far. */
  readonly log: () => string;
}

/** An opencode that was started with `opencode-connected`. */
export interface TailnetInstance {
  readonly id: string;
  readonly name: string;
  readonly directory: string;
  /** Its address at the node service. */
  readonly url: string;
  readonly child: ConnectedChild;
}

/** A real tailnet, and on its machines the real programs: node services, opencodes, MCP servers. */
class TailnetStage {
  /** The model of every opencode, reachable on each machine's loopback. */
  model!: ScriptedModel;
  tailnet!: Tailnet;
  readonly #temp = tempDir('opencode-mcp-tailnet');
  readonly #modelPorts = new Map<string, ForwardedPort>();
  readonly #children: AsyncDisposable[] = [];
  readonly #services: { readonly machine: TailnetMachine; readonly port: number }[] = [];

  async open(options: TailnetOptions): Promise<void> {
    this.model = await startScriptedModel();
    this.tailnet = await openTailnet(options);
    process.stdout.write(`${this.tailnet.describe()}\n`);
  }

  async close(): Promise<void> {
    await Promise.all(this.#children.splice(0).map((child) => child[Symbol.asyncDispose]()));
    await this.tailnet?.close();
    for (const port of this.#modelPorts.values()) port.close();
    await this.model?.close();
    await this.#temp.close();
  }

  readonly machine = (name: string): TailnetMachine => this.tailnet.node(name);

  /** Starts the node service with only this machine's tailscaled and registry set, because the machines share a disk. */
  async node(machine: TailnetMachine, env: Environment = {}): Promise<NodeChild> {
    const home = join(this.#temp.path, machine.name);
    await mkdir(home, { recursive: true });
    const child = machine.spawn([process.execPath, SERVER_SCRIPT, 'node'], {
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: home,
        TMPDIR: this.#temp.tmp,
        ...this.#settingsOf(machine),
        ...env,
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    logStarted('opencode-mcp node', machine, child);
    let log = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (log += text));
    await until(`the node service of ${machine.name} to be in the tailnet`, () => log.includes(' listening ')).catch(
      (error: unknown) => {
        throw new Error(`its log:\n${log}`, { cause: error });
      },
    );
    this.#services.push({ machine, port: Number(env['OPENCODE_NODE_PORT'] ?? NODE_PORT) });
    return { pid: child.pid ?? 0, exited: once(child, 'exit'), exitCode: () => child.exitCode, log: () => log };
  }

  /** Starts `opencode-connected --headless`; resolves when it is registered. */
  async opencode(machine: TailnetMachine, options: ConnectedOptions = {}): Promise<TailnetInstance> {
    const registry = this.#settingsOf(machine).RELAY_REGISTRY_DIR;
    const { prefix } = machine;
    const child = await startConnected({ model: await this.#modelOn(machine), registry, prefix, ...options });
    this.#children.push(child);
    logStarted(`opencode-connected with opencode ${await opencodeVersion()}`, machine, child);
    const { id, name } = await child.registered();
    return { id, name, directory: child.directory, url: originOf(machine) + INSTANCE_PREFIX + id, child };
  }

  /** Starts the preview of OpenCode 2 as the user's service. The node service needs its `home` to find it. */
  async preview(machine: TailnetMachine): Promise<Preview> {
    const { prefix } = machine;
    const preview = await startPreview({ model: await this.#modelOn(machine), registered: true, prefix });
    this.#children.push(preview);
    logStarted(preview.describe(), machine, preview);
    return preview;
  }

  /** Starts an opencode on every address of the machine, without a password or a node service. */
  async bare(machine: TailnetMachine): Promise<OpencodeSandbox> {
    const sandbox = await openSandbox();
    this.#children.push({ [Symbol.asyncDispose]: () => sandbox.close() });
    const argv = [PINNED_OPENCODE, 'serve', '--port', String(BARE_PORT), '--hostname', '::'];
    const child = machine.spawn(argv, { env: sandbox.env, cwd: sandbox.directory, stdio: 'ignore' });
    logStarted('opencode', machine, child);
    return sandbox;
  }

  /** Starts the built MCP server with an hour between polls, so that it shows nothing that a poll found. */
  async server(machine: TailnetMachine, env: Environment = {}): Promise<McpChild> {
    // Setting up a first connection may take longer than the server's timeout, and then it asks again only after half a minute.
    const others = this.#services.filter(({ machine: other }) => other !== machine);
    await Promise.all(others.map(({ machine: other, port }) => connects(machine, other, port)));
    // An opencode that has just started on two busy cores was silent for more than 6 s.
    const patience = { DISCOVERY_INTERVAL_MS: '3600000', HEALTH_CHECK_TIMEOUT_MS: '15000' };
    const server = await startMcpChild({
      prefix: machine.prefix,
      clientInfo: CLAUDE_CODE,
      env: { ...this.#settingsOf(machine), ...patience, ...env },
    });
    this.#children.push(server);
    logStarted('opencode-mcp', machine, server);
    return server;
  }

  #settingsOf({ name, socket }: TailnetMachine) {
    return { TAILSCALE_SOCKET: socket, RELAY_REGISTRY_DIR: join(this.#temp.path, `registry-${name}`) };
  }

  async #modelOn({ name, namespace }: TailnetMachine): Promise<{ readonly url: string }> {
    const forwarded =
      this.#modelPorts.get(name) ?? (await forwardInto(namespace, Number(new URL(this.model.url).port)));
    this.#modelPorts.set(name, forwarded);
    return { url: `http://127.0.0.1:${forwarded.port}/v1` };
  }
}

/** Opens a stage before the tests of this file and closes it after them. Skips them where there can be no tailnet. */
export function stageForTests(options: TailnetOptions, prepare: () => Promise<void>): TailnetStage {
  const stage = new TailnetStage();
  beforeAll(async () => {
    if (!canRunTailnet()) return;
    await stage.open(options);
    await prepare();
  });
  afterAll(() => stage.close());
  beforeEach(needTailnet);
  return stage;
}

/** Logs the real components that a suite drives. */
function logStarted(program: string, { name }: TailnetMachine, { pid }: Pick<ChildProcess, 'pid'>): void {
  process.stdout.write(`${program} on ${name} (pid ${pid})\n`);
}

async function opencodeVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(join(dirname(PINNED_OPENCODE), '..', 'package.json'), 'utf8')) as {
    readonly version: string;
  };
  return version;
}

/** The origin of a machine's node service. */
export function originOf({ ip4, ip6 }: TailnetMachine): string {
  return `http://${ip4 === '' ? `[${ip6}]` : ip4}:${NODE_PORT}`;
}

/** A policy under which everyone reaches everyone, and bob's machines have a role on ada's. */
export function grantToBob(role: string): Readonly<Record<string, unknown>> {
  return {
    tagOwners: OPEN_POLICY.tagOwners,
    grants: [
      { src: ['*'], dst: ['*'], ip: ['*'] },
      { src: ['bob@'], dst: ['ada@'], app: { [CAPABILITY]: [{ role }] } },
    ],
  };
}
