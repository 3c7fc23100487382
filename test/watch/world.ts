import { hostname } from 'node:os';

import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { WatchedSession } from '../../src/model/watched.ts';
import { OwnInstances, type OwnInstancesDeps } from '../../src/node/list/own-instances.ts';
import { OwnPorts } from '../../src/node/access/own-ports.ts';
import { readSecret } from '../../src/credentials/secret.ts';
import { LiveWatcher } from '../../src/watch/live-watcher.ts';
import type { WatchedServer } from '../../src/watch/contract.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

interface WatchWorldOptions {
  readonly ports?: OwnInstancesDeps['ports'];
  readonly healthCheckTimeoutMs?: number;
  readonly discoveryIntervalMs?: number;
  /** The state directory of OpenCode 2 services; default none. */
  readonly opencodeStateDir?: string;
}

export type WatchWorld = Awaited<ReturnType<typeof openWatchWorld>>;

/** A watcher in this process, with a new registry. */
export async function openWatchWorld(options: WatchWorldOptions = {}) {
  const temp = tempDir('opencode-mcp-watch');
  const registry = await openRegistry(`${temp.path}/registry`);
  const uid = process.getuid?.() ?? 0;
  const { healthCheckTimeoutMs = 20_000, discoveryIntervalMs = 30_000 } = options;
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
  const watcher = new LiveWatcher({ own: instances, clock: systemClock, logger: silentLogger });
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
    async register(
      id: string,
      { port, directory }: { readonly port: number; readonly directory: string },
      password?: string,
    ) {
      await registry.add({ name: id, id, port, cwd: directory }, password === undefined ? {} : { password });
    },
    server,
    session,
    /** Waits until a server is followed and its first whole survey is done. */
    followed: (id: string) => until(`${id} to be followed`, () => watcher.checkedMs(id) !== undefined),
    /** Waits until a session is in this state. */
    becomes: (sessionId: string, state: WatchedSession['state']) =>
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
