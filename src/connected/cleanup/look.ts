import pLimit from 'p-limit';
import { messageOf } from '../../base/errors.ts';
import type { RegistrySurvey } from '../relay/relay-survey.ts';
import { readRunStates, type RunStateFile } from '../run-state.ts';
import { listenerOn } from '../start/port.ts';
import type { Places, Surveyors } from '../status/places.ts';
import type { Finding } from './finding.ts';
import { judgeRegistry } from './judge.ts';
import { judgeWrappers } from './wrappers.ts';

/** Connects in flight while ports are asked; a dead loopback port refuses at once. */
const CONNECTS = 16;

export interface Looked {
  /** What is dead and what may be. */
  readonly findings: readonly Finding[];
  readonly states: readonly RunStateFile[];
  /** Each a survey, or why there is none; without a relay, undefined. */
  readonly here: RegistrySurvey | string;
  readonly relay: RegistrySurvey | string | undefined;
}

/** Looks at both registry directories and at what wrappers left behind, all at the same time; nothing is changed. */
export async function look({ stateDir }: Places, surveyors: Surveyors): Promise<Looked> {
  const [states, here, relay] = await Promise.all([
    readRunStates(stateDir),
    surveyors.here.survey().catch(messageOf),
    surveyors.relay?.survey().catch(messageOf),
  ]);
  const registryDir = typeof here === 'string' ? undefined : here.directory;
  const findings = [
    ...(typeof here === 'string' ? [] : await judgeHere(here, states)),
    ...(await judgeWrappers({ states, registryDir })),
    ...(typeof relay === 'object' ? judgeRelay(relay, states) : []),
  ];
  return { findings, states, here, relay };
}

/** Asks each registered port of this machine. */
async function judgeHere(survey: RegistrySurvey, states: readonly RunStateFile[]): Promise<readonly Finding[]> {
  const limit = pLimit(CONNECTS);
  const ports = new Set(survey.registrations.flatMap(({ registration }) => registration?.port ?? []));
  const asked = new Map(
    await Promise.all([...ports].map((port) => limit(async () => [port, await listenerOn(port)] as const))),
  );
  return judgeRegistry({ where: 'here', survey, states, listens: (port) => asked.get(port) ?? 'unknown' });
}

function judgeRelay(survey: RegistrySurvey, states: readonly RunStateFile[]): readonly Finding[] {
  const { ports } = survey;
  const listens = (port: number): 'some' | 'none' | 'unknown' =>
    ports === undefined ? 'unknown' : ports.has(port) ? 'some' : 'none';
  return judgeRegistry({ where: 'relay', survey, states, listens });
}
