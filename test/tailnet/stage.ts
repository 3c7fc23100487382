import type { ChildProcess } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { CAPABILITY } from '../../src/node/access/admission.ts';
import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { type ConnectedChild, type ConnectedOptions, startConnected } from '../rig/connected-child.ts';
import { type ForwardedPort, forwardInto } from '../rig/forwarded-port.ts';
import { type McpChild, SERVER_SCRIPT, startMcpChild } from '../rig/mcp-child.ts';
import { PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox } from '../rig/opencode-sandbox.ts';
import { type Preview, startPreview } from '../rig/opencode-preview.ts';
import { type ScriptedModel, startScriptedModel } from '../rig/scripted-model.ts';
import { OPEN_POLICY, openTailnet, type Tailnet, type TailnetMachine, type TailnetOptions } from '../rig/tailnet.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { connects } from './queries.ts';

/** Of the node service, when nothing else is set. */
export const NODE_PORT = 4095;

/** Where a machine without a node service is asked for an opencode, when nothing else is set. */
export const BARE_PORT = 4096;

/** A client whose sends wait as long as a cold opencode on a busy machine needs. */
const CLAUDE_CODE = { name: 'claude-code', version: '2.1.329' };

type Environment = Readonly<Record<string, string>>;

/** `opencode-mcp node`, running. */
export interface NodeChild {
  readonly pid: number;
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
  /** Where a node service proxies it. */
  readonly url: string;
  readonly child: ConnectedChild;
}

/** A real tailnet, and on its machines the real programs: node services, opencodes, MCP servers. */
export interface TailnetStage extends AsyncDisposable {
  readonly tailnet: Tailnet;
  /** The model of every opencode, reachable on each machine's loopback. */
  readonly model: ScriptedModel;
  /** Starts the node service with only this machine's tailscaled and registry set, since the machines share a disk. */
  node(machine: TailnetMachine, env?: Environment): Promise<NodeChild>;
  /** Starts `opencode-connected --headless` and resolves when it is registered. */
  opencode(machine: TailnetMachine, options?: ConnectedOptions): Promise<TailnetInstance>;
  /** Starts the preview of OpenCode 2 as the person's service there. Its `home` is where that machine's node service must look. */
  preview(machine: TailnetMachine): Promise<Preview>;
  /** Starts the built MCP server with the same settings and an hour between discovery rounds, so that nothing it shows came by polling. */
  server(machine: TailnetMachine, env?: Environment): Promise<McpChild>;
  close(): Promise<void>;
}

export async function openTailnetStage(options: TailnetOptions): Promise<TailnetStage> {
  const temp = tempDir('opencode-mcp-tailnet');
  const model = await startScriptedModel();
  const ports = new Map<string, ForwardedPort>();
  const children: AsyncDisposable[] = [];
  const services: { readonly machine: TailnetMachine; readonly port: number }[] = [];
  let tailnet: Tailnet | undefined;
  const close = async (): Promise<void> => {
    await Promise.all(children.splice(0).map((child) => child[Symbol.asyncDispose]()));
    await tailnet?.close();
    for (const port of ports.values()) port.close();
    await model.close();
    await temp.close();
  };

  function settingsOf({ name, socket }: TailnetMachine): Environment {
    return { TAILSCALE_SOCKET: socket, RELAY_REGISTRY_DIR: join(temp.path, `registry-${name}`) };
  }

  async function modelOn(machine: TailnetMachine): Promise<{ readonly url: string }> {
    const forwarded =
      ports.get(machine.name) ?? (await forwardInto(machine.namespace, Number(new URL(model.url).port)));
    ports.set(machine.name, forwarded);
    return { url: `http://127.0.0.1:${forwarded.port}/v1` };
  }

  async function startNode(machine: TailnetMachine, env: Environment): Promise<NodeChild> {
    const home = join(temp.path, machine.name);
    await mkdir(home, { recursive: true });
    const child = machine.spawn([process.execPath, SERVER_SCRIPT, 'node'], {
      env: { PATH: process.env['PATH'] ?? '', HOME: home, TMPDIR: temp.tmp, ...settingsOf(machine), ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    tell('opencode-mcp node', machine, child);
    let log = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (log += text));
    await until(`the node service of ${machine.name} to be in the tailnet`, () => log.includes(' listening ')).catch(
      (error: unknown) => {
        throw new Error(`its log:\n${log}`, { cause: error });
      },
    );
    services.push({ machine, port: Number(env['OPENCODE_NODE_PORT'] ?? NODE_PORT) });
    return { pid: child.pid ?? 0, exitCode: () => child.exitCode, log: () => log };
  }

  async function startInstance(machine: TailnetMachine, options: ConnectedOptions): Promise<TailnetInstance> {
    const registry = settingsOf(machine)['RELAY_REGISTRY_DIR'] ?? '';
    const { prefix } = machine;
    const child = await startConnected({ model: await modelOn(machine), registry, prefix, ...options });
    children.push(child);
    tell(`opencode-connected with opencode ${await opencodeVersion()}`, machine, child);
    const { id, name } = await child.registered();
    return { id, name, directory: child.directory, url: originOf(machine) + INSTANCE_PREFIX + id, child };
  }

  async function startService(machine: TailnetMachine): Promise<Preview> {
    const { prefix } = machine;
    const preview = await startPreview({ model: await modelOn(machine), registered: true, prefix });
    children.push(preview);
    tell(preview.describe(), machine, preview);
    return preview;
  }

  async function startServer(machine: TailnetMachine, env: Environment): Promise<McpChild> {
    // A connection that is still being set up may outlast a server's timeout, and then it asks again only after half a minute.
    const others = services.filter(({ machine: other }) => other !== machine);
    await Promise.all(others.map(({ machine: other, port }) => connects(machine, other, port)));
    // With two cores shared by several, an opencode that has just started was silent for more than 6 s.
    const silence = { DISCOVERY_INTERVAL_MS: '3600000', HEALTH_CHECK_TIMEOUT_MS: '15000' };
    const server = await startMcpChild({
      prefix: machine.prefix,
      clientInfo: CLAUDE_CODE,
      env: { ...settingsOf(machine), ...silence, ...env },
    });
    children.push(server);
    tell('opencode-mcp', machine, server);
    return server;
  }

  try {
    tailnet = await openTailnet(options);
    process.stdout.write(`${tailnet.describe()}\n`);
    return {
      tailnet,
      model,
      node: (machine, env = {}) => startNode(machine, env),
      opencode: (machine, options = {}) => startInstance(machine, options),
      preview: (machine) => startService(machine),
      server: (machine, env = {}) => startServer(machine, env),
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** An opencode started by hand: it listens on every address of the machine, without a password or a node service. */
export async function startBare(machine: TailnetMachine): Promise<OpencodeSandbox> {
  const sandbox = await openSandbox();
  const argv = [PINNED_OPENCODE, 'serve', '--port', String(BARE_PORT), '--hostname', '::'];
  const child = machine.spawn(argv, { env: sandbox.env, cwd: sandbox.directory, stdio: 'ignore' });
  tell('opencode', machine, child);
  return sandbox;
}

/** Logs the real components that a suite drives. */
function tell(what: string, { name }: TailnetMachine, { pid }: Pick<ChildProcess, 'pid'>): void {
  process.stdout.write(`${what} on ${name} (pid ${pid})\n`);
}

async function opencodeVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(join(dirname(PINNED_OPENCODE), '..', 'package.json'), 'utf8')) as {
    readonly version: string;
  };
  return version;
}

/** Where a machine's node service listens. */
export function originOf({ ip4, ip6 }: TailnetMachine): string {
  return `http://${ip4 === '' ? `[${ip6}]` : ip4}:${NODE_PORT}`;
}

/** Everyone reaches everyone, and bob's machines have a role on ada's. */
export function grantToBob(role: string): Readonly<Record<string, unknown>> {
  return {
    tagOwners: OPEN_POLICY.tagOwners,
    grants: [
      { src: ['*'], dst: ['*'], ip: ['*'] },
      { src: ['bob@'], dst: ['ada@'], app: { [CAPABILITY]: [{ role }] } },
    ],
  };
}
