import { systemClock } from '../clock.ts';
import type { Settings } from '../config/settings.ts';
import { createCredentialResolver } from '../credentials/resolver.ts';
import { createSecretCommands } from '../credentials/secret-commands.ts';
import { LiveDirectory } from '../directory/directory.ts';
import type { DiscoverySource } from '../discovery/source.ts';
import type { Logger } from '../log.ts';
import { createRuntime, type Runtime } from '../operations/runtime.ts';

export interface StartedRuntime {
  readonly runtime: Runtime;
  readonly close: () => Promise<void>;
}

/** Starts discovery and returns what the operations work with; nothing is waited for. */
export function startRuntime(settings: Settings, sources: readonly DiscoverySource[], logger: Logger): StartedRuntime {
  const ending = new AbortController();
  const commands = createSecretCommands({ clock: systemClock, signal: ending.signal });
  const credentials = createCredentialResolver(settings, { commands });
  const directory = new LiveDirectory({
    settings,
    sources,
    resolveCredential: (candidate, signal) => credentials.resolve(candidate, signal),
    clock: systemClock,
    logger,
  });
  directory.start();
  return {
    runtime: createRuntime(directory, systemClock),
    close: () => {
      ending.abort();
      return directory.close();
    },
  };
}
