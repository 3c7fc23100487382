import { quoteName, singleLine } from '../../base/plain-text.ts';
import { MAX_REGISTRATIONS } from '../../discovery/registry/registration-reader.ts';
import type { RunStateFile } from '../run-state.ts';
import type { RegistrySurvey, SurveyedClaim, SurveyedRegistration } from '../survey/registry-survey.ts';
import type { RelayRegistration, RelayReport } from './report.ts';

const MAX_CHARS = 300;

/** Makes a report of a survey. */
export function relayReport(survey: RegistrySurvey, states: readonly RunStateFile[]): RelayReport {
  const claims = new Map(survey.claims.map((claim) => [claim.name, claim]));
  return {
    directory: singleLine(survey.directory, MAX_CHARS),
    ...(survey.host !== '' && { host: singleLine(survey.host, MAX_CHARS) }),
    registrations: survey.registrations.map((file) => registrationRow(file, claims.get(file.name), states)),
    notes: [
      ...survey.odd.map(({ fileName, reason }) => ({
        subject: quoteName(singleLine(fileName, MAX_CHARS)),
        reason: singleLine(reason, MAX_CHARS),
      })),
      ...(survey.leftOut > 0
        ? [
            {
              subject: quoteName(singleLine(survey.directory, MAX_CHARS)),
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
    host: registration.hostname === undefined ? undefined : singleLine(registration.hostname, MAX_CHARS),
    port,
    localPort,
    // The name that is claimed; the name inside the file is only a label.
    name: singleLine(name, MAX_CHARS),
    directory: cwd === undefined ? undefined : singleLine(cwd, MAX_CHARS),
    owner: isMine ? 'mine' : 'other',
    ownerUid: isMine ? undefined : ownerUid,
    listens: LISTENS[listens],
    claim: claim?.holder ?? 'none',
    fromHere: id !== undefined && states.some(({ state, isRunning }) => isRunning && state.id === id),
  };
}
