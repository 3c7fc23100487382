import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { Logger } from '../base/log.ts';
import { kernelSockets } from '../node/access/loopback-peer.ts';
import { revocationPath, Revocation } from '../node/revocation.ts';
import { CallRecord } from '../operations/call-record.ts';
import { createRuntime } from '../operations/runtime.ts';
import { RequestJournal } from '../operations/send/request-journal.ts';
import { NodeService } from '../node/service.ts';
import { localApiAddress } from '../tailscale/address.ts';
import { createLocalApi } from '../tailscale/local-api.ts';
import type { LiveWatcher } from '../watch/live-watcher.ts';
import { untilSignal } from './terminal/until-signal.ts';
import { startNotifier } from './notify/start-notifier.ts';
import { createOwnWatcher } from './notify/own-watcher.ts';

/** After this the process exits in any case: systemd and people wait for it. */
const SHUTDOWN_LIMIT_MS = 800;

/** Serves this user's instances on the tailnet until a signal comes; serves nothing while revoked. */
export async function node(settings: Settings, logger: Logger, process: NodeJS.Process): Promise<void> {
  checkUser(process);
  const { signal: ending, release } = untilSignal(process);
  const revocation = new Revocation({ stateDir: settings.stateDir, clock: systemClock, logger });
  ending.addEventListener('abort', () => {
    logger.log('info', 'ending');
    setTimeout(() => process.exit(0), SHUTDOWN_LIMIT_MS).unref();
  });
  while (!ending.aborted) {
    if (revocation.isRevoked) {
      logger.log('warn', 'revoked, so nothing is served; to serve again, run: opencode-mcp node --allow', {
        marker: revocationPath(settings.stateDir),
      });
      await revocation.until('allowed', ending);
    } else await serveUntilRevoked(settings, logger, process, { revocation, ending });
  }
  await revocation.close();
  release();
  process.exit(0);
}

/** Runs one service; its state, passwords too, ends with it. */
async function serveUntilRevoked(
  settings: Settings,
  logger: Logger,
  process: NodeJS.Process,
  { revocation, ending }: { readonly revocation: Revocation; readonly ending: AbortSignal },
): Promise<void> {
  const over = new LinkedAbort(ending);
  const record = new CallRecord(settings.serviceDir, systemClock, logger);
  const { signal } = over;
  const { service, watcher } = createService(settings, logger, process, { record, signal });
  service.start();
  watcher.start();
  const notifier = startNotifier({ settings, watcher, linkBase: () => service.url, logger, signal });
  await revocation.until('revoked', ending);
  // Closing cuts every connection at once; the orderly rest must not delay `--allow` for long.
  const closing = Promise.all([service.close(), watcher.close(), notifier?.close()]);
  over.end();
  await Promise.race([closing, systemClock.sleep(SHUTDOWN_LIMIT_MS)]);
  await record.close();
}

/** @throws {SettingsError} */
function checkUser(process: NodeJS.Process): number {
  const uid = process.geteuid?.();
  if (uid === undefined) throw new SettingsError('opencode-mcp node: this system has no user ids');
  return uid;
}

function createService(
  settings: Settings,
  logger: Logger,
  process: NodeJS.Process,
  { record, signal }: { readonly record: CallRecord; readonly signal: AbortSignal },
): { readonly service: NodeService; readonly watcher: LiveWatcher } {
  const uid = checkUser(process);
  const { tailnet } = settings;
  const { instances, watcher, host } = createOwnWatcher({ settings, uid, logger, signal });
  const service = new NodeService({
    api: createLocalApi({ socketPath: tailnet.socketPath, clock: systemClock, logger }),
    instances,
    watcher,
    page: {
      own: createRuntime(instances.fleet, systemClock, {
        approvals: settings,
        journal: new RequestJournal(join(settings.serviceDir, 'requests'), systemClock),
      }),
      startAll: async () =>
        (await import('./terminal/start-runtime.ts')).startRuntime(
          { ...settings, stateDir: settings.serviceDir },
          logger,
          { watcher },
        ),
      readOnly: settings.readOnly,
      record: (entry) => record.add(entry),
    },
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
