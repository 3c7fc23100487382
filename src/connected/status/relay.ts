import { quoteName } from '../../base/plain-text.ts';
import { MAX_REGISTRATIONS } from '../../discovery/registry/registration-reader.ts';
import type { RunStateFile } from '../run-state.ts';
import { shown } from '../shown.ts';
import type { RegistrySurvey, SurveyedClaim, SurveyedRegistration } from '../survey/registry-survey.ts';
import type { RelayRegistration, RelayReport } from './report.ts';

export function relayReport(survey: RegistrySurvey, states: readonly RunStateFile[]): RelayReport {
  const claims = new Map(survey.claims.map((claim) => [claim.name, claim]));
  return {
    directory: shown(survey.directory),
    ...(survey.host !== '' && { host: shown(survey.host) }),
    registrations: survey.registrations.map((file) => registrationRow(file, claims.get(file.name), states)),
    notes: [
      ...survey.odd.map(({ fileName, reason }) => ({
        subject: quoteName(shown(fileName)),
        reason: shown(reason),
      })),
      ...(survey.leftOut > 0
        ? [
            {
              subject: quoteName(shown(survey.directory)),
              reason: `holds ${survey.leftOut} registrations more than the ${MAX_REGISTRATIONS} that are read`,
            },
          ]
        : []),
    ],
  };
}

const LISTENS = { some: 'yes', none: 'no', unknown: 'unknown' } as const;

function registrationRow(
  { name, isMine, ownerUid, registration, listens }: SurveyedRegistration,
  claim: SurveyedClaim | undefined,
  states: readonly RunStateFile[],
): RelayRegistration {
  const { id, port, localPort, cwd } = registration;
  return {
    id,
    host: registration.hostname === undefined ? undefined : shown(registration.hostname),
    port,
    localPort,
    // The name that is claimed; the name inside the file is only a label.
    name: shown(name),
    directory: cwd === undefined ? undefined : shown(cwd),
    owner: isMine ? 'mine' : 'other',
    ownerUid: isMine ? undefined : ownerUid,
    listens: LISTENS[listens],
    claim: claim?.holder ?? 'none',
    fromHere: id !== undefined && states.some(({ state, isRunning }) => isRunning && state.id === id),
  };
}
