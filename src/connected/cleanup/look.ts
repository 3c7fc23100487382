import pLimit from 'p-limit';
import { listenerOn } from '../start/port.ts';
import type { RegistrySurvey } from '../relay/relay-survey.ts';
import type { SurveySession } from '../relay/relay-survey-session.ts';
import { readRunStates, type RunStateFile } from '../run-state.ts';
import { type Places } from '../status/places.ts';
import { messageOf } from '../../base/errors.ts';
import type { Finding } from './finding.ts';
import { judgeRegistry } from './judge.ts';
import { judgeWrappers } from './wrappers.ts';

/** Connects in flight while ports are asked; a dead loopback port refuses at once. */
const CONNECTS = 16;

export interface Looked {
  readonly findings: readonly Finding[];
  /** What could not be looked at. */
  readonly problems: readonly string[];
}

/** What is dead and what may be, here and on the relay, found by questions only. */
export async function look(settings: Places, here: SurveySession, relay: SurveySession | undefined): Promise<Looked> {
  const states = await readRunStates(settings.stateDir);
  const [local, remote] = await Promise.allSettled([here.survey(), relay?.survey()]);
  const findings: Finding[] = [];
  const problems: string[] = [];
  if (local.status === 'fulfilled') findings.push(...(await judgeHere(local.value, states)));
  else problems.push(`This machine's registry directory was not looked at: ${messageOf(local.reason)}.`);
  const registryDir = local.status === 'fulfilled' ? local.value.directory : undefined;
  findings.push(...(await judgeWrappers({ states, registryDir })));
  if (remote.status === 'rejected') problems.push(`The relay was not looked at: ${messageOf(remote.reason)}.`);
  else if (remote.value !== undefined) findings.push(...judgeRelay(remote.value, states));
  return { findings, problems };
}

/** Asks each registered port of this machine. */
export async function judgeHere(survey: RegistrySurvey, states: readonly RunStateFile[]): Promise<readonly Finding[]> {
  const limit = pLimit(CONNECTS);
  const ports = new Set(survey.registrations.flatMap(({ registration }) => registration?.port ?? []));
  const asked = new Map(
    await Promise.all([...ports].map((port) => limit(async () => [port, await listenerOn(port)] as const))),
  );
  return judgeRegistry({ where: 'here', survey, states, listens: (port) => asked.get(port) ?? 'unknown' });
}

export function judgeRelay(survey: RegistrySurvey, states: readonly RunStateFile[]): readonly Finding[] {
  const { ports } = survey;
  const listens = (port: number): 'some' | 'none' | 'unknown' =>
    ports === undefined ? 'unknown' : ports.has(port) ? 'some' : 'none';
  return judgeRegistry({ where: 'relay', survey, states, listens });
}
