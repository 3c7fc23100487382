import { join } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import type { Settings } from '../../config/settings.ts';
import { createCredentialResolver } from '../../credentials/resolver.ts';
import { createSecretCommands } from '../../credentials/secret-commands.ts';
import { LiveFleet } from '../../fleet/fleet.ts';
import { createSources, systemDependencies } from '../../discovery/sources.ts';
import type { Logger } from '../../base/log.ts';
import { FollowMarks } from '../../operations/send/follow-marks.ts';
import { RequestJournal } from '../../operations/send/request-journal.ts';
import { createRuntime, type Runtime } from '../../operations/runtime.ts';

/** Where calls on this machine say what they follow. */
export function followMarks({ stateDir }: Pick<Settings, 'stateDir'>): FollowMarks {
  return new FollowMarks(join(stateDir, 'following'), systemClock);
}

export interface StartedRuntime {
  readonly runtime: Runtime;
  readonly close: () => Promise<void>;
}

/**
 * Starts discovery and returns what the operations work with; nothing is waited for. `onChange` is called shortly after
 * names or states of the listed instances have changed.
 * @throws {SettingsError} the settings name a source that there is not
 */
export function startRuntime(settings: Settings, logger: Logger, onChange?: () => void): StartedRuntime {
  const ending = new AbortController();
  const commands = createSecretCommands({ clock: systemClock, signal: ending.signal });
  const credentials = createCredentialResolver(settings, { commands });
  const fleet = new LiveFleet({
    settings,
    sources: createSources(settings, systemDependencies(logger)),
    resolveCredential: (candidate, signal) => credentials.resolve(candidate, signal),
    withHeaders: (endpoint, signal) => credentials.withHeaders(endpoint, signal),
    clock: systemClock,
    logger,
    ...(onChange && { onChange }),
  });
  fleet.start();
  return {
    runtime: createRuntime(fleet, systemClock, {
      approvals: settings,
      journal: new RequestJournal(join(settings.stateDir, 'requests'), systemClock),
      marks: followMarks(settings),
    }),
    close: () => {
      ending.abort();
      return fleet.close();
    },
  };
}
