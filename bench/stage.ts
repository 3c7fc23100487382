import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { NO_MULTICAST } from '../test/rig/no-multicast.ts';
import { freePort } from '../test/rig/ports.ts';
import { openRegistry, type Registry } from '../test/rig/registry.ts';
import { tempDir, type TempDir } from '../test/rig/temp.ts';
import { BUILT_SERVER, bundlePrograms, type Scripts } from './bundle.ts';
import { LineProcess, type SpawnOptions } from './line-process.ts';
import { NodeProcess } from './node-process.ts';
import type { BareSurveyOptions } from './programs/bare-survey.ts';
import type { CrowdOptions } from './programs/lan-crowd.ts';
import type { FleetCounts, FleetOptions, FleetOrder, FleetPorts, FleetToken, FleetWords } from './programs/fleet.ts';
import type { StreamerPlace } from './programs/streamer.ts';
import type { TailscaledCounts, TailscaledOptions, TailscaledPlace } from './programs/tailscaled.ts';
import { NO_ROUNDS, ServerProcess } from './server-process.ts';

export interface ServerOptions {
  readonly registry?: Registry;
  readonly env?: Readonly<Record<string, string>>;
  /** See `SpawnOptions`. */
  readonly before?: readonly string[];
  /** Instead of the built server. */
  readonly script?: string;
}

export interface NodeOptions {
  readonly registry: Registry;
  /** tailscaled's. */
  readonly socketPath: string;
  /** This machine's tailnet address. */
  readonly host: string;
}

/** A program that printed its address. */
export interface Placed<Place> extends AsyncDisposable {
  readonly place: Place;
  readonly process: LineProcess;
}

export type Tailscaled = Placed<TailscaledPlace>;

type Program = Exclude<keyof Scripts, 'server' | 'serve' | 'bare-server'>;

/** Requests since the last call. */
export function countsOf({ process }: Tailscaled): Promise<TailscaledCounts> {
  return process.ask<TailscaledCounts>({});
}

async function placed<Place>(process: LineProcess): Promise<Placed<Place>> {
  return { process, place: await process.read<Place>(), [Symbol.asyncDispose]: () => process.close() };
}

/** The folder of a run; its processes end with this one, however it ends. */
export class Stage implements AsyncDisposable {
  readonly scripts: Scripts;
  readonly #temp: TempDir;
  #registries = 0;

  private constructor(temp: TempDir, scripts: Scripts) {
    this.#temp = temp;
    this.scripts = scripts;
  }

  static async open(builtServer = BUILT_SERVER): Promise<Stage> {
    const temp = tempDir('opencode-mcp-bench');
    return new Stage(temp, await bundlePrograms(join(temp.path, 'dist'), builtServer));
  }

  get folder(): string {
    return this.#temp.path;
  }

  /** An empty one. */
  async registry(): Promise<Registry> {
    const path = join(this.#temp.path, `registry-${(this.#registries += 1)}`);
    await mkdir(path, { mode: 0o700 });
    return await openRegistry(path);
  }

  /** A registry of these ports; live ones with the directory that the fleet gives them. */
  async registryOf({ live, silent }: FleetPorts, password?: string): Promise<Registry> {
    const registry = await this.registry();
    for (const [index, port] of live.entries())
      await registry.add(
        { ...entry(index, port), ...(password !== undefined && { id: `service-${index}` }) },
        password === undefined ? {} : { password },
      );
    for (const [index, port] of silent.entries()) await registry.add(entry(live.length + index, port));
    return registry;
  }

  /** Our server, before the handshake. */
  spawnServer({ registry, env, before, script }: ServerOptions): ServerProcess {
    return new ServerProcess({
      script: script ?? this.scripts.server,
      args: registry === undefined ? [] : ['--registry-dir', registry.path],
      before,
      ...this.#surroundings({ ...NO_ROUNDS, ...env }),
    });
  }

  async startServer(options: ServerOptions): Promise<ServerProcess> {
    const server = this.spawnServer(options);
    await server.initialize();
    await server.listTools();
    return server;
  }

  spawnBareServer(tools: number): ServerProcess {
    return new ServerProcess({ script: this.scripts['bare-server'], args: [String(tools)], ...this.#surroundings({}) });
  }

  async startFleet(options: FleetOptions): Promise<Fleet> {
    const fleet = new Fleet(this.#program('fleet', JSON.stringify(options)));
    fleet.ports = await fleet.read<FleetPorts>();
    return fleet;
  }

  /** A machine of a LAN, in its network namespace. */
  async startLanCrowd(before: readonly string[], options: CrowdOptions): Promise<LineProcess> {
    const script = this.scripts['lan-crowd'];
    const args = [JSON.stringify(options)];
    return await this.#ready(new LineProcess({ script, args, before, ...this.#surroundings({}) }));
  }

  async startBareSurvey(options: BareSurveyOptions): Promise<LineProcess> {
    return await this.#ready(this.#spawn('bare-survey', JSON.stringify(options)));
  }

  async startBareStream(url: string): Promise<LineProcess> {
    return await this.#ready(this.#spawn('bare-stream', url));
  }

  async startStreamer(): Promise<Placed<StreamerPlace>> {
    return await placed(this.#spawn('streamer', ''));
  }

  async startTailscaled(options: TailscaledOptions): Promise<Tailscaled> {
    return await placed(this.#spawn('tailscaled', JSON.stringify(options)));
  }

  /** The node service, listening. */
  async startNode({ registry, socketPath, host }: NodeOptions): Promise<NodeProcess> {
    const port = await freePort();
    const env = {
      TAILSCALE_SOCKET: socketPath,
      OPENCODE_NODE_PORT: String(port),
      OPENCODE_MCP_LOG_LEVEL: 'error',
      // As in the units.
      MALLOC_ARENA_MAX: '1',
      MALLOC_TRIM_THRESHOLD_: '131072',
    };
    const args = ['node', '--registry-dir', registry.path];
    const node = new NodeProcess({ script: this.scripts.server, args, ...this.#surroundings(env) }, host, port);
    await node.listening();
    return node;
  }

  async close(): Promise<void> {
    await this.#temp.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #spawn(name: Program, argument: string): LineProcess {
    return new LineProcess(this.#program(name, argument));
  }

  #program(name: Program, argument: string): SpawnOptions {
    return { script: this.scripts[name], args: [argument], ...this.#surroundings({}) };
  }

  async #ready(process: LineProcess): Promise<LineProcess> {
    await process.read();
    return process;
  }

  #surroundings(env: Readonly<Record<string, string>>): Pick<SpawnOptions, 'cwd' | 'env'> {
    return { cwd: this.#temp.path, env: { HOME: this.#temp.path, TMPDIR: this.#temp.tmp, ...NO_MULTICAST, ...env } };
  }
}

/** The process of the fake opencodes. */
export class Fleet extends LineProcess {
  ports: FleetPorts = { live: [], silent: [] };

  /** Requests since the last call. */
  async count(): Promise<FleetCounts> {
    return await this.#order<FleetCounts>({ order: 'count' });
  }

  /** Resolves once every live instance was asked for its sessions since the last `count`. */
  async surveyed(timeoutMs: number): Promise<void> {
    await this.#order<object>({ order: 'surveyed' }, timeoutMs);
  }

  /** Resolves once the first instance got a prompt since the last call. */
  async prompted(): Promise<void> {
    await this.#order<object>({ order: 'prompted' });
  }

  /** Emits text in the running turn of the first instance. */
  async token(text: string): Promise<FleetToken> {
    return await this.#order<FleetToken>({ order: 'token', text });
  }

  /** Begins a turn in the first instances, each of which emits a word at intervals until `hush`. */
  async speak(instances: number, everyMs: number): Promise<void> {
    await this.#order<object>({ order: 'speak', instances, everyMs });
  }

  /** Words emitted. */
  async hush(): Promise<number> {
    return (await this.#order<FleetWords>({ order: 'hush' })).words;
  }

  /** Begins or ends a turn in the last instance. */
  async change(): Promise<FleetToken> {
    return await this.#order<FleetToken>({ order: 'change' });
  }

  /** Ends the running turn of the first instance. */
  async finish(text: string): Promise<void> {
    await this.#order<object>({ order: 'finish', text });
  }

  #order<Answer>(order: FleetOrder, timeoutMs?: number): Promise<Answer> {
    return this.ask<Answer>(order, timeoutMs);
  }
}

function entry(index: number, port: number): { readonly name: string; readonly port: number; readonly cwd: string } {
  return { name: `project-${index}`, port, cwd: `/home/user/project-${index}` };
}
