import { hostname } from 'node:os';

import { systemClock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Settings } from '../../config/settings.ts';
import { createCredentialResolver } from '../../credentials/resolver.ts';
import { createSecretCommands } from '../../credentials/secret-commands.ts';
import { OwnPorts } from '../../node/access/own-ports.ts';
import { OwnInstances } from '../../node/list/own-instances.ts';
import { LiveWatcher } from '../../watch/live-watcher.ts';

export interface OwnWatcherInput {
  readonly settings: Settings;
  readonly uid: number;
  readonly logger: Logger;
  /** Ends the programs that supply passwords. */
  readonly signal: AbortSignal;
}

/** This user's servers on this machine, and their watcher; the caller starts and closes both. */
export interface OwnWatcher {
  readonly instances: OwnInstances;
  readonly watcher: LiveWatcher;
  readonly host: string;
}

export function createOwnWatcher({ settings, uid, logger, signal }: OwnWatcherInput): OwnWatcher {
  const host = hostname();
  const credentials = createCredentialResolver(settings, {
    commands: createSecretCommands({ clock: systemClock, signal }),
  });
  const instances = new OwnInstances({
    settings,
    uid,
    hostname: host,
    ports: new OwnPorts(uid),
    resolveCredential: (candidate, cut) => credentials.resolve(candidate, cut),
    clock: systemClock,
    logger,
  });
  return { instances, watcher: new LiveWatcher({ own: instances, clock: systemClock, logger }), host };
}
