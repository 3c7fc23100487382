import { join } from 'node:path';
import { quoteName, singleLine } from '../../base/plain-text.ts';
import type { RegistrySurvey, SurveyedClaim, SurveyedRegistration } from '../relay/relay-survey.ts';
import { ODD_REASONS } from '../relay/relay-survey.ts';
import type { RunStateFile } from '../run-state.ts';
import type { Action, Finding } from './finding.ts';

export interface Evidence {
  readonly where: 'here' | 'relay';
  readonly survey: RegistrySurvey;
  /** Of this machine's wrappers, running or not. */
  readonly states: readonly RunStateFile[];
  readonly listens: (port: number) => 'some' | 'none' | 'unknown';
}

const MAX_PATH_CHARS = 300;
const NOT_ALONE = 'others can write in the registry directory, or it is not of this user';

/**
 * What of a registry directory is dead, and what only may be. What lives is not in the result. Dead is a registration of this user
 * on whose port nothing listens, and whose instance is gone: its claim is of a process that ended or, here, its wrapper did.
 */
export function judgeRegistry(evidence: Evidence): readonly Finding[] {
  const { survey } = evidence;
  const registrations = survey.registrations.map((registration) => judgeRegistration(registration, evidence));
  const odd = survey.odd.map(({ kind, fileName }): Finding => ({
    where: evidence.where,
    what: 'registration',
    subject: shownPath(survey, fileName),
    reason: `${ODD_REASONS[kind]}; remove it by hand if it is in the way`,
  }));
  const found = [...registrations.filter((one) => one !== undefined), ...odd, ...claimsWithout(evidence)];
  const findings = [...found, ...judgePasswords(evidence, found)];
  if (survey.isOursAlone) return findings;
  return findings.map(({ action, ...finding }) => (action === undefined ? finding : { ...finding, reason: NOT_ALONE }));
}

function judgeRegistration(file: SurveyedRegistration, evidence: Evidence): Finding | undefined {
  const { where, survey } = evidence;
  const { registration } = file;
  const finding = (reason: string, action?: Action): Finding => ({
    where,
    what: 'registration',
    subject: shownPath(survey, `${file.name}.json`),
    reason,
    ...(registration?.id !== undefined && { id: registration.id }),
    ...(action !== undefined && { action }),
  });
  if (registration === undefined)
    return finding(`${file.problem ?? 'cannot be read'}; remove it by hand if it is dead`);
  const claim = survey.claims.get(file.name);
  const state = evidence.states.find((one) => one.state.id === registration.id);
  if (state?.isRunning === true || claim?.holder === 'alive') return undefined;
  const listening = evidence.listens(registration.port);
  const gone = whyGone(registration.id, claim, state);
  if (listening === 'some') {
    return gone === undefined ? undefined : finding(`${gone}, but something listens on its port ${registration.port}`);
  }
  if (file.owner !== 'mine') return finding(`belongs to ${ownerText(file.owner)}, not to this user`);
  if (claim?.holder === 'elsewhere') {
    return finding(
      `is held by a process of ${JSON.stringify(singleLine(claim.host, 100))}, which cannot be asked here`,
    );
  }
  if (gone === undefined) {
    return finding('nothing tells who wrote it and whether that still lives; remove it by hand if it is dead');
  }
  if (listening === 'unknown') return finding(`${gone}, but whether something listens on its port is not known`);
  return finding(`${gone}, and nothing listens on its port ${registration.port}`, {
    kind: 'remove',
    dead: {
      nameBytes: file.nameBytes,
      claim: claim?.line ?? '',
      content: file.content,
      port: registration.port,
    },
  });
}

/** Undefined where nothing proves it. A claim of another instance's proves nothing of this one. */
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

/** Names that are still held for instances that ended before they were registered. */
function claimsWithout({ where, survey, states }: Evidence): readonly Finding[] {
  const names = new Set(survey.registrations.map(({ name }) => name));
  const running = new Set(states.filter(({ isRunning }) => isRunning).map(({ state }) => state.id));
  const findings: Finding[] = [];
  for (const [name, claim] of survey.claims) {
    if (names.has(name) || !claim.mine || claim.holder !== 'dead' || running.has(claim.id)) continue;
    findings.push({
      where,
      what: 'claim',
      subject: shownPath(survey, `.${name}.claim`),
      reason: `the process that held the name (pid ${claim.pid ?? 'unknown'}) has ended`,
      id: claim.id,
      action: { kind: 'remove', dead: { nameBytes: claim.nameBytes, claim: claim.line, content: '', port: 0 } },
    });
  }
  return findings;
}

/** `found`: what was found of registrations and claims. */
function judgePasswords({ where, survey, states }: Evidence, found: readonly Finding[]): readonly Finding[] {
  const removable = new Set(found.filter(({ action }) => action !== undefined).map(({ subject }) => subject));
  // An id that is still registered after this, or still claimed, needs its password.
  const needed = new Set<string | undefined>(states.filter(({ isRunning }) => isRunning).map(({ state }) => state.id));
  for (const { name, registration } of survey.registrations) {
    if (!removable.has(shownPath(survey, `${name}.json`))) needed.add(registration?.id);
  }
  for (const { id, holder } of survey.claims.values()) if (holder !== 'dead') needed.add(id);
  const gone = new Set(found.filter(({ action }) => action !== undefined).map(({ id }) => id));
  for (const { state, isRunning } of states) if (!isRunning && where === 'here') gone.add(state.id);

  return survey.passwords.flatMap(({ id, mine, old }): Finding[] => {
    if (needed.has(id)) return [];
    const finding = { where, what: 'password', subject: shownPath(survey, `.credentials/${id}`), id } as const;
    if (!mine) return [{ ...finding, reason: 'belongs to another user' }];
    if (gone.has(id))
      return [{ ...finding, reason: 'its instance is gone', action: { kind: 'forget', id, age: 'any' } }];
    if (!old) return [{ ...finding, reason: 'has no registration, but is younger than an hour' }];
    const reason = 'has had no registration for more than an hour';
    return [{ ...finding, reason, action: { kind: 'forget', id, age: 'old' } }];
  });
}

function ownerText(owner: number | 'mine' | undefined): string {
  return typeof owner === 'number' ? `uid ${owner}` : 'another user';
}

function shownPath({ directory }: RegistrySurvey, name: string): string {
  return quoteName(singleLine(join(directory, name), MAX_PATH_CHARS));
}
