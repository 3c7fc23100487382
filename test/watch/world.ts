import { hostname } from 'node:os';

import { type Clock, systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { WatchedSession } from '../../src/model/watched.ts';
import { OwnInstances, type OwnInstancesDeps } from '../../src/node/list/own-instances.ts';
import { OwnPorts } from '../../src/node/access/own-ports.ts';
import { readSecret } from '../../src/credentials/secret.ts';
import { LiveWatcher } from '../../src/watch/live-watcher.ts';
import type { WatchedServer } from '../../src/watch/contract.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

export interface WatchWorldOptions {
  readonly ports?: OwnInstancesDeps['ports'];
  readonly clock?: Clock;
  readonly healthCheckTimeoutMs?: number;
  readonly discoveryIntervalMs?: number;
  /** The state directory of OpenCode 2 services; default none. */
  readonly opencodeStateDir?: string;
}

/** A watcher in this process, over a registry of its own. */
export interface WatchWorld extends AsyncDisposable {
  readonly registry: Registry;
  readonly instances: OwnInstances;
  readonly watcher: LiveWatcher;
  /** How often its listeners were called. */
  readonly changes: number;
  register(id: string, server: { readonly port: number; readonly directory: string }, password?: string): Promise<void>;
  server(id: string): WatchedServer | undefined;
  session(sessionId: string): WatchedSession | undefined;
  /** Waits until a server is followed and was surveyed as a whole. */
  followed(id: string): Promise<void>;
  /** Waits until a session is in this state. */
  becomes(sessionId: string, state: WatchedSession['state']): Promise<WatchedSession>;
}

export async function openWatchWorld(options: WatchWorldOptions = {}): Promise<WatchWorld> {
  const temp = tempDir('opencode-mcp-watch');
  const registry = await openRegistry(`${temp.path}/registry`);
  const uid = process.getuid?.() ?? 0;
  const { clock = systemClock, healthCheckTimeoutMs = 20_000, discoveryIntervalMs = 30_000 } = options;
  const instances = new OwnInstances({
    settings: {
      registryDir: { path: registry.path, explicit: true },
      stateDir: temp.path,
      opencodeStateDir: options.opencodeStateDir ?? `${temp.path}/no-services`,
      discoveryIntervalMs,
      healthCheckTimeoutMs,
      healthConcurrency: 16,
    },
    uid,
    hostname: hostname(),
    ports: options.ports ?? new OwnPorts(uid),
    clock: systemClock,
    logger: silentLogger,
    resolveCredential: async ({ credential }, signal) => {
      const password =
        credential && (await readSecret(credential.password, { commands: { run: () => Promise.reject() } }, signal));
      return password === undefined ? undefined : { username: 'opencode', password };
    },
  });
  const watcher = new LiveWatcher({ own: instances, clock, logger: silentLogger });
  let changes = 0;
  watcher.onChange(() => (changes += 1));
  instances.start();
  watcher.start();
  const server = (id: string): WatchedServer | undefined => watcher.servers().find((one) => one.id === id);
  const session = (sessionId: string): WatchedSession | undefined =>
    watcher
      .servers()
      .flatMap(({ sessions }) => sessions)
      .find(({ id }) => id === sessionId);

  return {
    registry,
    instances,
    watcher,
    get changes() {
      return changes;
    },
    async register(id, { port, directory }, password) {
      await registry.add({ name: id, id, port, cwd: directory }, password === undefined ? {} : { password });
    },
    server,
    session,
    followed: async (id) => void (await until(`${id} to be followed`, () => server(id)?.checkedMs !== undefined)),
    becomes: (sessionId, state) =>
      until(`${sessionId} to be ${state}`, () => {
        const found = session(sessionId);
        return found?.state === state && found;
      }),
    async [Symbol.asyncDispose]() {
      await watcher.close();
      await instances.close();
      await temp.close();
    },
  };
}
