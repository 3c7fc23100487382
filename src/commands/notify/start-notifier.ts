import { hostname } from 'node:os';
import { join } from 'node:path';

import { systemClock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Settings } from '../../config/settings.ts';
import { readSecret } from '../../credentials/secret.ts';
import { createSecretCommands } from '../../credentials/secret-commands.ts';
import type { ChannelDeps } from '../../notify/channels/channel.ts';
import { createChannel } from '../../notify/channels/create-channel.ts';
import { NoticeStore } from '../../notify/notice-store.ts';
import { Notifier } from '../../notify/notifier.ts';
import { holdNotifying } from '../../notify/sole-notifier.ts';
import type { Watcher } from '../../watch/contract.ts';
import { followMarks } from '../terminal/start-runtime.ts';

export interface NotifierInput {
  readonly settings: Settings;
  readonly watcher: Watcher;
  /** The page's current URL, if it is served. */
  readonly linkBase: () => string | undefined;
  readonly logger: Logger;
  /** Ends the programs that supply secrets. */
  readonly signal: AbortSignal;
}

/** Starts notifying by the configured channels; undefined without any. */
export function startNotifier({ settings, watcher, linkBase, logger, signal }: NotifierInput): Notifier | undefined {
  const { notify, serviceDir } = settings;
  if (notify === undefined || notify.channels.length === 0) return undefined;
  const folder = join(serviceDir, 'notify');
  const deps = channelDeps(signal);
  const marks = followMarks(settings);
  const notifier = new Notifier({
    settings: notify,
    channels: notify.channels.map((rules) => ({ rules, channel: createChannel(rules, deps) })),
    watcher,
    host: hostname(),
    linkBase,
    followed: () => marks.read(),
    store: new NoticeStore(folder, logger),
    hold: () => holdNotifying(folder),
    clock: systemClock,
    logger,
  });
  notifier.start();
  return notifier;
}

export function channelDeps(signal: AbortSignal): ChannelDeps {
  const commands = createSecretCommands({ clock: systemClock, signal });
  return { clock: systemClock, readSecret: (ref, cut) => readSecret(ref, { commands }, cut) };
}
