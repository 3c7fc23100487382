import { quoteName, singleLine } from '../../base/plain-text.ts';
import { ODD_REASONS, type RegistrySurvey, type SurveyedRegistration } from '../relay/relay-survey.ts';
import { MAX_SURVEYED } from '../relay/relay-survey-program.ts';
import type { RunStateFile } from '../run-state.ts';
import type { RelayRegistration, RelayReport } from './report.ts';

const MAX_CHARS = 300;

/** What a survey of the relay's registry directory tells. */
export function relayReport(survey: RegistrySurvey, states: readonly RunStateFile[]): RelayReport {
  const usable = survey.registrations.flatMap((file) => registrationRow(file, survey, states) ?? []);
  return {
    directory: survey.directory,
    ...(survey.host !== '' && { host: survey.host }),
    registrations: usable,
    notes: [
      ...survey.odd.map(({ kind, fileName }) => ({ subject: quoteName(fileName), reason: ODD_REASONS[kind] })),
      ...survey.registrations.flatMap(({ name, problem }) =>
        problem === undefined ? [] : [{ subject: quoteName(singleLine(`${name}.json`, MAX_CHARS)), reason: problem }],
      ),
      ...(survey.total > MAX_SURVEYED
        ? [
            {
              subject: quoteName(survey.directory),
              reason: `holds ${survey.total} registrations, of which ${MAX_SURVEYED} are shown`,
            },
          ]
        : []),
    ],
  };
}

function registrationRow(
  { name, owner, registration }: SurveyedRegistration,
  { claims, ports }: RegistrySurvey,
  states: readonly RunStateFile[],
): RelayRegistration | undefined {
  if (registration === undefined) return undefined;
  const { id, hostname: host, port, localPort, cwd } = registration;
  return {
    id,
    host,
    port,
    localPort,
    // The name by which it is held; what stands in the file is only a label.
    name: singleLine(name, MAX_CHARS),
    directory: cwd === undefined ? undefined : singleLine(cwd, MAX_CHARS),
    owner: owner === 'mine' ? 'mine' : 'other',
    ownerUid: typeof owner === 'number' ? owner : undefined,
    listens: ports === undefined ? 'unknown' : ports.has(port) ? 'yes' : 'no',
    claim: claims.get(name)?.holder ?? 'none',
    fromHere: id !== undefined && states.some(({ state, isRunning }) => isRunning && state.id === id),
  };
}
