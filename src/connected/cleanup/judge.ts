import { join } from 'node:path';
import { quoteName, singleLine } from '../../base/plain-text.ts';
import type { RunStateFile } from '../run-state.ts';
import { shown } from '../shown.ts';
import type { RegistrySurvey, SurveyedClaim, SurveyedRegistration } from '../survey/registry-survey.ts';
import type { Action, Finding } from './finding.ts';

export interface Evidence {
  readonly where: 'here' | 'relay';
  readonly survey: RegistrySurvey;
  readonly states: readonly RunStateFile[];
}

const NOT_ALONE = 'others can write in the registry directory, or it is not of this user';

/**
 * Finds what is dead in a registry directory, and what may be dead. A registration of this user is dead if nothing listens on its port and
 * its instance is gone: the process that claimed it has ended or, on this machine, its wrapper has.
 */
export function judgeRegistry(evidence: Evidence): readonly Finding[] {
  const { survey } = evidence;
  const claims = new Map(survey.claims.map((claim) => [claim.name, claim]));
  const registrations = survey.registrations.map((file) => judgeRegistration(file, claims.get(file.name), evidence));
  const odd = survey.odd.map(({ fileName, reason }): Finding => ({
    where: evidence.where,
    what: 'registration',
    subject: shownPath(survey, fileName),
    reason: `${shown(reason)}; remove it by hand if it is in the way`,
  }));
  const found = [...registrations.filter((one) => one !== undefined), ...odd, ...claimsWithout(evidence)];
  const findings = [...found, ...judgePasswords(evidence, found)];
  if (survey.isOursAlone) return findings;
  return findings.map(({ action, ...finding }) => (action === undefined ? finding : { ...finding, reason: NOT_ALONE }));
}

function judgeRegistration(
  file: SurveyedRegistration,
  claim: SurveyedClaim | undefined,
  evidence: Evidence,
): Finding | undefined {
  const { where, survey } = evidence;
  const { registration } = file;
  const finding = (reason: string, action?: Action): Finding => ({
    where,
    what: 'registration',
    subject: shownPath(survey, `${file.name}.json`),
    reason,
    ...(registration.id !== undefined && { id: registration.id }),
    ...(action !== undefined && { action }),
  });
  const state = evidence.states.find((one) => one.state.id === registration.id);
  if (state?.isRunning === true || claim?.holder === 'alive') return undefined;
  const { listens } = file;
  const gone = whyGone(registration.id, claim, state);
  if (listens === 'some') {
    return gone === undefined ? undefined : finding(`${gone}, but something listens on its port ${registration.port}`);
  }
  if (!file.isMine) return finding(`belongs to uid ${file.ownerUid}, not to this user`);
  if (claim?.holder === 'elsewhere') {
    return finding(
      `is held by a process of ${JSON.stringify(singleLine(claim.host, 100))}, which cannot be checked here`,
    );
  }
  if (gone === undefined) {
    return finding('its writer is unknown, so it may be alive; remove it by hand if it is dead');
  }
  if (listens === 'unknown') return finding(`${gone}, but it is not known whether something listens on its port`);
  return finding(`${gone}, and nothing listens on its port ${registration.port}`, {
    kind: 'registration',
    name: file.name,
    claim: claim?.line ?? '',
    version: file.version,
    port: registration.port,
  });
}

/** Why the instance is certainly gone; undefined without proof. Another instance's claim proves nothing about this one. */
function whyGone(
  id: string | undefined,
  claim: SurveyedClaim | undefined,
  state: RunStateFile | undefined,
): string | undefined {
  if (id === undefined) return undefined;
  if (claim !== undefined && claim.holder !== 'dead') return undefined;
  if (claim?.id === id) return `the process that held its name (pid ${claim.pid ?? 'unknown'}) has ended`;
  if (claim !== undefined || state === undefined) return undefined;
  return `its opencode-connected (pid ${state.state.pid}) has ended`;
}

/** Claims of instances that ended before they were registered. */
function claimsWithout({ where, survey, states }: Evidence): readonly Finding[] {
  // A damaged registration may still be in use.
  const odd = survey.odd.map(({ fileName }) => fileName.slice(0, -'.json'.length));
  const names = new Set([...survey.registrations.map(({ name }) => name), ...odd]);
  const running = new Set(states.filter(({ isRunning }) => isRunning).map(({ state }) => state.id));
  const findings: Finding[] = [];
  for (const claim of survey.claims) {
    const { name } = claim;
    if (names.has(name) || !claim.isMine || claim.holder !== 'dead' || running.has(claim.id)) continue;
    findings.push({
      where,
      what: 'claim',
      subject: shownPath(survey, `.${name}.claim`),
      reason: `the process that held the name (pid ${claim.pid ?? 'unknown'}) has ended`,
      id: claim.id,
      action: { kind: 'registration', name, claim: claim.line },
    });
  }
  return findings;
}

function judgePasswords({ where, survey, states }: Evidence, found: readonly Finding[]): readonly Finding[] {
  const removable = new Set(found.filter(({ action }) => action !== undefined).map(({ subject }) => subject));
  // An id that stays registered or claimed needs its password.
  const needed = new Set<string | undefined>(states.filter(({ isRunning }) => isRunning).map(({ state }) => state.id));
  for (const { name, registration } of survey.registrations) {
    if (!removable.has(shownPath(survey, `${name}.json`))) needed.add(registration.id);
  }
  for (const { id, holder } of survey.claims) if (holder !== 'dead') needed.add(id);
  const gone = new Set(found.filter(({ action }) => action !== undefined).map(({ id }) => id));
  for (const { state, isRunning } of states) if (!isRunning && where === 'here') gone.add(state.id);

  return survey.passwords.flatMap(({ id, isMine, isOld }): Finding[] => {
    if (needed.has(id)) return [];
    const finding = { where, what: 'password', subject: shownPath(survey, `.credentials/${id}`), id } as const;
    if (!isMine) return [{ ...finding, reason: 'belongs to another user' }];
    if (gone.has(id))
      return [{ ...finding, reason: 'its instance is gone', action: { kind: 'password', id, age: 'any' } }];
    if (!isOld) return [{ ...finding, reason: 'has no registration, but is younger than an hour' }];
    const reason = 'has had no registration for more than an hour';
    return [{ ...finding, reason, action: { kind: 'password', id, age: 'old' } }];
  });
}

function shownPath({ directory }: RegistrySurvey, name: string): string {
  return quoteName(shown(join(directory, name)));
}
