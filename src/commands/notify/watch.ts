import { once } from 'node:events';

import type { Logger } from '../../base/log.ts';
import { type Settings, SettingsError } from '../../config/settings.ts';
import { configuredNotify } from './notify.ts';
import { createOwnWatcher } from './own-watcher.ts';
import { startNotifier } from './start-notifier.ts';
import { untilSignal } from '../terminal/until-signal.ts';

/** After this the process exits in any case: systemd and people wait for it. */
const SHUTDOWN_LIMIT_MS = 800;

/** Watches this user's servers and notifies until a signal comes: for a machine without a tailnet. */
export async function watch(settings: Settings, logger: Logger, process: NodeJS.Process): Promise<void> {
  configuredNotify(settings, 'watch');
  const uid = process.geteuid?.();
  if (uid === undefined) throw new SettingsError('opencode-mcp watch: this system has no user ids');
  const { signal, release } = untilSignal(process);
  const { instances, watcher } = createOwnWatcher({ settings, uid, logger, signal });
  instances.start();
  watcher.start();
  const notifier = startNotifier({ settings, watcher, linkBase: () => undefined, logger, signal });
  await once(signal, 'abort');
  logger.log('info', 'ending');
  const cutOff = setTimeout(() => process.exit(0), SHUTDOWN_LIMIT_MS);
  await Promise.all([notifier?.close(), watcher.close(), instances.close()]);
  clearTimeout(cutOff);
  release();
  process.exit(0);
}
