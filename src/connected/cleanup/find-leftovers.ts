import { messageOf } from '../../base/errors.ts';
import { readRunStates, type RunStateFile } from '../run-state.ts';
import type { Places, Registries } from '../status/places.ts';
import type { RegistrySurvey } from '../survey/registry-survey.ts';
import type { Finding } from './finding.ts';
import { judgeRegistry } from './judge.ts';
import { judgeWrappers } from './wrappers.ts';

export interface Leftovers {
  readonly findings: readonly Finding[];
  readonly states: readonly RunStateFile[];
  /** A survey, or the reason why there is none. Undefined without a relay. */
  readonly here: RegistrySurvey | string;
  readonly relay: RegistrySurvey | string | undefined;
}

/** Surveys both registry directories and the remains of wrappers, at the same time. Changes nothing. */
export async function findLeftovers(
  { stateDir }: Places,
  registries: Registries,
  signal: AbortSignal,
): Promise<Leftovers> {
  const [states, here, relay] = await Promise.all([
    readRunStates(stateDir),
    registries.here.survey(signal).catch(messageOf),
    registries.relay?.survey(signal).catch(messageOf),
  ]);
  const registryDir = typeof here === 'string' ? undefined : here.directory;
  const findings = [
    ...(typeof here === 'string' ? [] : judgeRegistry({ where: 'here', survey: here, states })),
    ...(await judgeWrappers({ states, registryDir })),
    ...(typeof relay === 'object' ? judgeRegistry({ where: 'relay', survey: relay, states }) : []),
  ];
  return { findings, states, here, relay };
}
