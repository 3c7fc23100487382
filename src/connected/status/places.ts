import type { Settings } from '../../config/settings.ts';
import { localRegistry, type Registry } from '../survey/registry.ts';
import { relayRegistry } from '../survey/relay-registry.ts';

/** What `status`, `cleanup` and `sessions` look at. */
export interface Places extends Pick<
  Settings,
  'registryDir' | 'healthCheckTimeoutMs' | 'healthConcurrency' | 'credentialRules' | 'defaultCredential'
> {
  /** Absolute: where running wrappers leave their state. */
  readonly stateDir: string;
  /** Absolute: where this user's own OpenCode 2 service writes itself down. */
  readonly opencodeStateDir: string;
  /** In words, see `splitCommand`; absent without a relay. */
  readonly relaySshCommand?: readonly string[] | undefined;
  /** On the relay. */
  readonly relayRegistryDir: Settings['registryDir'];
}

/** What each of the three is called with. */
export interface CommandOptions {
  readonly settings: Places;
  /** Standard output: whole lines. */
  readonly out: (text: string) => void;
  readonly signal: AbortSignal;
}

/** 0: all was looked at; 1: something could not be, and the output says what. */
export type ExitCode = 0 | 1;

/** The registry directories that are looked at. */
export interface Registries {
  readonly here: Registry;
  /** Undefined without a relay. */
  readonly relay: Registry | undefined;
}

export function registriesOf({ registryDir, relaySshCommand, relayRegistryDir, stateDir }: Places): Registries {
  return {
    here: localRegistry({ ...directoryOf(registryDir), stateDir }),
    relay: relaySshCommand && relayRegistry({ ...directoryOf(relayRegistryDir), sshCommand: relaySshCommand }),
  };
}

function directoryOf({ path, explicit }: Settings['registryDir']): { directory: string; isDefault: boolean } {
  return { directory: path, isDefault: !explicit };
}
