import type { Settings } from '../../config/settings.ts';
import { systemClock } from '../../base/clock.ts';
import { openSurveySession, type SurveySession } from '../relay/relay-survey-session.ts';

/** What `status`, `cleanup` and `sessions` look at. */
export interface Places extends Pick<
  Settings,
  'registryDir' | 'healthCheckTimeoutMs' | 'healthConcurrency' | 'credentialRules' | 'defaultCredential'
> {
  /** Absolute: where running wrappers leave their state. */
  readonly stateDir: string;
  /** In words, see `splitCommand`; absent without a relay. */
  readonly relaySshCommand?: readonly string[];
  /** On the relay: absolute, or beginning with `~/`. */
  readonly relayRegistryDir: string;
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

export function openHere(settings: Places, signal: AbortSignal): SurveySession {
  return openSurveySession({ directory: settings.registryDir.path, clock: systemClock, signal });
}

/** Undefined without a relay. */
export function openRelay(settings: Places, signal: AbortSignal): SurveySession | undefined {
  const { relaySshCommand: sshCommand, relayRegistryDir: directory } = settings;
  return sshCommand === undefined
    ? undefined
    : openSurveySession({ sshCommand, directory, clock: systemClock, signal });
}
