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

/** What looks at the registry directories. */
export interface Surveyors {
  readonly here: SurveySession;
  /** Undefined without a relay. */
  readonly relay: SurveySession | undefined;
}

/** Opens the sessions that `work` needs, and closes them. */
export async function withSurveyors<T>(
  settings: Places,
  signal: AbortSignal,
  work: (surveyors: Surveyors) => Promise<T>,
): Promise<T> {
  const { registryDir, relaySshCommand: sshCommand, relayRegistryDir } = settings;
  const common = { clock: systemClock, signal };
  const here = openSurveySession({ ...common, ...directoryOf(registryDir) });
  const relay = sshCommand && openSurveySession({ ...common, sshCommand, ...directoryOf(relayRegistryDir) });
  try {
    return await work({ here, relay });
  } finally {
    await Promise.all([here.close(), relay?.close()]);
  }
}

function directoryOf({ path, explicit }: Settings['registryDir']): { directory: string; isDefault: boolean } {
  return { directory: path, isDefault: !explicit };
}
