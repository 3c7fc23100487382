import type { Logger } from '../../base/log.ts';
import { type Settings, SettingsError } from '../../config/settings.ts';
import { configuredNotify } from './notify.ts';
import { createOwnWatcher } from './own-watcher.ts';
import { startNotifier } from './start-notifier.ts';

/** What has not ended by then is cut off: systemd and people wait for it. */
const SHUTDOWN_LIMIT_MS = 800;
/** The longest timer there is. */
const FOREVER_MS = 2_147_483_647;

/** Watches this user's servers and notifies until a signal comes: for a machine without a tailnet. */
export async function watch(settings: Settings, logger: Logger, process: NodeJS.Process): Promise<void> {
  configuredNotify(settings, 'watch');
  const uid = process.geteuid?.();
  if (uid === undefined) throw new SettingsError('opencode-mcp watch: this system does not tell whose a process is');
  const ending = new AbortController();
  const { signal } = ending;
  const { instances, watcher } = createOwnWatcher({ settings, uid, logger, signal });
  // While there is no server nothing else keeps the process.
  const alive = setInterval(() => {}, FOREVER_MS);
  const ended = new Promise<void>((resolve) => {
    for (const one of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(one, resolve);
  });
  instances.start();
  watcher.start();
  const notifier = startNotifier({ settings, watcher, linkBase: () => undefined, logger, signal });
  await ended;
  logger.log('info', 'ending');
  ending.abort();
  const cutOff = setTimeout(() => process.exit(0), SHUTDOWN_LIMIT_MS);
  await Promise.all([notifier?.close(), watcher.close(), instances.close()]);
  clearTimeout(cutOff);
  clearInterval(alive);
  process.exit(0);
}
