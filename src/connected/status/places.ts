import type { Settings } from '../../config/settings.ts';
import { localRegistry, type Registry } from '../survey/registry.ts';
import { relayRegistry } from '../survey/relay-registry.ts';

export interface Places extends Pick<
  Settings,
  | 'registryDir'
  | 'stateDir'
  | 'opencodeStateDir'
  | 'healthCheckTimeoutMs'
  | 'healthConcurrency'
  | 'credentialRules'
  | 'defaultCredential'
> {
  /** In words, see `splitCommand`; absent without a relay. */
  readonly relaySshCommand?: readonly string[] | undefined;
  readonly relayRegistryDir: Settings['registryDir'];
}

export interface CommandOptions {
  readonly settings: Places;
  readonly out: (text: string) => void;
  readonly signal: AbortSignal;
}

/** 1: something could not be read or asked; the output says what. */
export type ExitCode = 0 | 1;

export interface Registries {
  readonly here: Registry;
  readonly relay: Registry | undefined;
}

export function registriesOf({ relaySshCommand: sshCommand, relayRegistryDir, ...place }: Places): Registries {
  return {
    here: localRegistry(place),
    relay: sshCommand && relayRegistry({ registryDir: relayRegistryDir, sshCommand }),
  };
}
