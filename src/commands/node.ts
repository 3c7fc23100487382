import { stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { systemClock } from '../base/clock.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import { createCredentialResolver } from '../credentials/resolver.ts';
import { createSecretCommands } from '../credentials/secret-commands.ts';
import type { Logger } from '../base/log.ts';
import { kernelSockets } from '../node/access/loopback-peer.ts';
import { OwnInstances } from '../node/list/own-instances.ts';
import { OwnPorts } from '../node/access/own-ports.ts';
import { NodeService } from '../node/service.ts';
import { localApiAddress } from '../tailscale/address.ts';
import { createLocalApi } from '../tailscale/local-api.ts';
import { LiveWatcher } from '../watch/live-watcher.ts';

/** What has not ended by then is cut off: systemd and people wait for it. */
const SHUTDOWN_LIMIT_MS = 800;

/** The longest timer there is. */
const FOREVER_MS = 2_147_483_647;

/** Serves this user's instances on the tailnet until a signal comes. */
export async function node(settings: Settings, logger: Logger, process: NodeJS.Process): Promise<void> {
  const ending = new AbortController();
  const { service, watcher } = createService(settings, logger, process, ending.signal);
  // While tailscaled is away nothing else keeps the process.
  const alive = setInterval(() => {}, FOREVER_MS);
  const ended = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, resolve);
  });
  service.start();
  watcher.start();
  await ended;
  logger.log('info', 'ending');
  ending.abort();
  const cutOff = setTimeout(() => process.exit(0), SHUTDOWN_LIMIT_MS);
  await Promise.all([watcher.close(), service.close()]);
  clearTimeout(cutOff);
  clearInterval(alive);
  process.exit(0);
}

function createService(
  settings: Settings,
  logger: Logger,
  process: NodeJS.Process,
  signal: AbortSignal,
): { readonly service: NodeService; readonly watcher: LiveWatcher } {
  const uid = process.geteuid?.();
  if (uid === undefined) throw new SettingsError('opencode-mcp node: this system does not tell whose a process is');
  const { tailnet } = settings;
  const host = hostname();
  const credentials = createCredentialResolver(settings, {
    commands: createSecretCommands({ clock: systemClock, signal }),
  });
  const instances = new OwnInstances({
    settings,
    uid,
    hostname: host,
    ports: new OwnPorts(uid),
    resolveCredential: (candidate, signal) => credentials.resolve(candidate, signal),
    clock: systemClock,
    logger,
  });
  const watcher = new LiveWatcher({ own: instances, clock: systemClock, logger });
  const service = new NodeService({
    api: createLocalApi({ socketPath: tailnet.socketPath, clock: systemClock, logger }),
    instances,
    watcher,
    port: tailnet.nodePort,
    rules: { users: tailnet.users, tags: tailnet.tags },
    host,
    loopbackPeer: { ...kernelSockets, tailscaledUid: () => socketOwner(tailnet.socketPath) },
    clock: systemClock,
    logger,
  });
  return { service, watcher };
}

/** tailscaled makes its socket itself, so that it belongs to the user it runs as. */
async function socketOwner(configured: string | undefined): Promise<number | undefined> {
  const address = localApiAddress(configured);
  if (address.kind !== 'socket') return undefined;
  const stats = await stat(address.path).catch(() => undefined);
  return stats?.isSocket() === true ? stats.uid : undefined;
}
