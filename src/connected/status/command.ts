import { systemClock } from '../../base/clock.ts';
import { safeToShow } from '../../base/plain-text.ts';
import { judgeHere, judgeRelay } from '../cleanup/look.ts';
import type { Finding } from '../cleanup/finding.ts';
import { judgeWrappers } from '../cleanup/wrappers.ts';
import { readRunStates } from '../run-state.ts';
import { localInstance, wrapper } from './local.ts';
import { type CommandOptions, type ExitCode, openHere, openRelay, type Places } from './places.ts';
import { messageOf } from '../../base/errors.ts';
import { askRegistered } from './registered.ts';
import { relayReport } from './relay.ts';
import { renderStatus } from './render.ts';
import type { RelayReport, StatusReport } from './report.ts';

export interface StatusOptions extends CommandOptions {
  /** Print a `StatusReport` instead of text. */
  readonly json: boolean;
}

/** Prints what is registered here and on the relay, and what answers there. 1 where one of the two could not be looked at. */
export async function runStatus({ settings, json, out, signal }: StatusOptions): Promise<ExitCode> {
  const report = await lookAround(settings, signal);
  out(json ? `${JSON.stringify(safeToShow(report), undefined, 2)}\n` : renderStatus(report, systemClock.now()));
  return report.here.problem === undefined && report.relay?.problem === undefined ? 0 : 1;
}

/** Asks everything at the same time; nothing is changed. */
async function lookAround(settings: Places, signal: AbortSignal): Promise<StatusReport> {
  const here = openHere(settings, signal);
  const relay = openRelay(settings, signal);
  try {
    const states = await readRunStates(settings.stateDir);
    const [registered, localSurvey, relaySurvey] = await Promise.all([
      askRegistered(settings, signal),
      // Only for what is left over: a directory that cannot be read is told by the other.
      here.survey().catch(() => undefined),
      relay?.survey().catch((error: unknown) => messageOf(error)),
    ]);
    const leftovers: Finding[] = [];
    if (localSurvey !== undefined) leftovers.push(...(await judgeHere(localSurvey, states)));
    const evidence = { states, registryDir: localSurvey?.directory };
    leftovers.push(...(await judgeWrappers(evidence)));
    if (typeof relaySurvey === 'object') leftovers.push(...judgeRelay(relaySurvey, states));
    return {
      format: 1,
      here: {
        directory: settings.registryDir.path,
        ...(registered.problem !== undefined && { problem: registered.problem }),
        instances: await Promise.all(registered.registered.map(localInstance)),
        notes: registered.notes,
      },
      ...(relaySurvey !== undefined && { relay: relayOf(relaySurvey, settings, states) }),
      wrappers: states.map(wrapper),
      leftovers: leftovers
        .filter(({ action }) => action !== undefined)
        .map(({ where, what, subject, reason }) => ({ where, what, subject, reason })),
    };
  } finally {
    await Promise.all([here.close(), relay?.close()]);
  }
}

function relayOf(
  survey: Parameters<typeof relayReport>[0] | string,
  settings: Places,
  states: Parameters<typeof relayReport>[1],
): RelayReport {
  if (typeof survey !== 'string') return relayReport(survey, states);
  return { directory: settings.relayRegistryDir, problem: survey, registrations: [], notes: [] };
}
