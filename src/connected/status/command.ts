import { systemClock } from '../../base/clock.ts';
import { safeToShow } from '../../base/plain-text.ts';
import { findLeftovers } from '../cleanup/find-leftovers.ts';
import { localInstance, wrapper } from './local.ts';
import { type CommandOptions, type ExitCode, type Places, registriesOf } from './places.ts';
import { askRegistered, withOverviews } from './registered.ts';
import { relayReport } from './relay.ts';
import { renderStatus } from './render.ts';
import type { StatusReport } from './report.ts';

export interface StatusOptions extends CommandOptions {
  readonly json: boolean;
}

/** Prints what is registered here and on the relay, and what answers. Exit code 1 if one of the two could not be read. */
export async function runStatus({ settings, json, out, signal }: StatusOptions): Promise<ExitCode> {
  const report = await reportOf(settings, signal);
  out(json ? `${JSON.stringify(safeToShow(report), undefined, 2)}\n` : renderStatus(report, systemClock.now()));
  return report.here.problem === undefined && report.relay?.problem === undefined ? 0 : 1;
}

async function reportOf(settings: Places, signal: AbortSignal): Promise<StatusReport> {
  const [{ registered, problem, notes }, { findings, states, here, relay }] = await Promise.all([
    askRegistered(settings, signal),
    findLeftovers(settings, registriesOf(settings), signal),
  ]);
  const instances = await withOverviews(registered, settings, signal);
  const { registryDir, relayRegistryDir } = settings;
  return {
    format: 1,
    here: {
      // The survey shows which of the two default directories is in use.
      directory: registryDir.explicit || typeof here === 'string' ? registryDir.path : here.directory,
      problem,
      instances: await Promise.all(instances.map(localInstance)),
      notes,
    },
    relay:
      typeof relay === 'string'
        ? { directory: relayRegistryDir.path, problem: relay, registrations: [], notes: [] }
        : relay && relayReport(relay, states),
    wrappers: states.map(wrapper),
    leftovers: findings
      .filter(({ action }) => action !== undefined)
      .map(({ where, what, subject, reason }) => ({ where, what, subject, reason })),
  };
}
