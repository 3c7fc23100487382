import { join } from 'node:path';
import type { ReaderWords } from '../../model/advice.ts';
import { systemClock } from '../../base/clock.ts';
import type { Settings } from '../../config/settings.ts';
import { createCredentialResolver } from '../../credentials/resolver.ts';
import { createSecretCommands } from '../../credentials/secret-commands.ts';
import { LiveFleet } from '../../fleet/fleet.ts';
import { createSources, systemDependencies } from '../../discovery/sources.ts';
import { REGISTRY_SOURCE } from '../../discovery/registry/registry.ts';
import { SERVICE_SOURCE } from '../../discovery/service/service.ts';
import type { Logger } from '../../base/log.ts';
import type { Watcher } from '../../watch/contract.ts';
import { withReports } from '../../watch/with-reports.ts';
import { FollowMarks } from '../../operations/send/follow-marks.ts';
import { RequestJournal } from '../../operations/send/request-journal.ts';
import { createRuntime, type Runtime } from '../../operations/runtime.ts';

/** Shared by all calls on this machine. */
export function followMarks({ stateDir }: Pick<Settings, 'stateDir'>): FollowMarks {
  return new FollowMarks(join(stateDir, 'following'), systemClock);
}

export interface StartedRuntime {
  readonly runtime: Runtime;
  readonly close: () => Promise<void>;
}

export interface RuntimeOptions {
  /** Called shortly after a change of names or states in the listing. */
  readonly onChange?: (() => void) | undefined;
  /** Watches this machine's own instances, which are then not polled. */
  readonly watcher?: Watcher;
  /** The words for the reader of the answers; default: a model's. */
  readonly words?: ReaderWords;
}

/** Sources of this machine's own instances. */
const OWN_SOURCES = new Set([REGISTRY_SOURCE, SERVICE_SOURCE]);

/**
 * Starts discovery and returns at once.
 * @throws {SettingsError} the settings name an unknown source
 */
export function startRuntime(
  settings: Settings,
  logger: Logger,
  { onChange, watcher, words }: RuntimeOptions = {},
): StartedRuntime {
  const ending = new AbortController();
  const commands = createSecretCommands({ clock: systemClock, signal: ending.signal });
  const credentials = createCredentialResolver(settings, { commands });
  const fleet = new LiveFleet({
    settings,
    sources: createSources(settings, systemDependencies(logger)).map((source) =>
      watcher !== undefined && OWN_SOURCES.has(source.name) ? withReports(source, watcher, systemClock) : source,
    ),
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
      ...(words && { words }),
    }),
    close: () => {
      ending.abort();
      return fleet.close();
    },
  };
}
