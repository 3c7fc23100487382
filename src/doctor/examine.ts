import type { Clock } from '../base/clock.ts';
import { reasonOf } from '../base/errors.ts';
import { VERSION } from '../base/version.ts';
import { within } from '../base/within.ts';
import type { Settings } from '../config/settings.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Snapshot } from '../model/instance.ts';
import { clientChecks } from './clients.ts';
import { follow } from './follow.ts';
import { instanceChecks } from './instances.ts';
import { programChecks, type ProgramInput } from './program.ts';
import { relayChecks } from './relay.ts';
import { check, type Check, type DoctorReport, reportOf, type Section } from './report.ts';
import { multicastCheck, sourceChecks } from './sources.ts';
import { stateChecks } from './state.ts';
import { tailnetChecks } from './tailnet.ts';

export interface Examination extends ProgramInput {
  readonly settings: Settings;
  readonly fleet: Fleet;
  /** The configuration file, whether it exists or not. */
  readonly configPath: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** For the whole run; people do not wait longer. What is unknown by then is reported as unknown. */
export const DOCTOR_LIMIT_MS = 20_000;
/** For sources and instances: two rounds of scans and probes. Shorter than the whole, so that the known part is shown. */
const FLEET_LIMIT_MS = 15_000;

/** Runs all checks at the same time. Changes nothing. */
export async function examine(input: Examination): Promise<DoctorReport> {
  const { settings, clock, place } = input;
  const snapshot = discover(input);
  const section = (
    id: string,
    title: string,
    work: (cut: AbortSignal) => Promise<readonly Check[]>,
  ): Promise<Section> => boundedSection({ id, title }, input, work);
  const sections = await Promise.all([
    section('program', 'Program', async () => programChecks(input)),
    section('sources', 'Sources', async () => sourceChecks(await snapshot, clock.now())),
    section('instances', 'Instances', async () => instancesOf(await snapshot, input)),
    section('tailnet', 'Tailnet on this machine', (cut) =>
      tailnetChecks({ tailnet: settings.tailnet, clock, signal: cut, script: input.script, env: place.env }),
    ),
    section('relay', 'Relay and opencode-connected', (cut) => relayChecks({ settings, clock, signal: cut })),
    section('multicast', 'Multicast on the LAN', async () => [multicastCheck(settings, await snapshot)]),
    section('clients', 'MCP clients', async () => clientChecks(place)),
    section('state', 'State and record', async () => stateChecks(settings.stateDir)),
  ]);
  return reportOf(VERSION, sections);
}

/** Checks one name, from the sources to the list. */
export async function examineName(name: string, input: Examination): Promise<DoctorReport> {
  const snapshot = await discover(input);
  const settings = programChecks(input).filter(({ verdict }) => verdict === 'broken');
  const sections = follow(name, snapshot, instancesOf(snapshot, input));
  const before = settings.length === 0 ? [] : [{ id: 'program', title: 'Program', checks: settings }];
  return reportOf(VERSION, [...before, ...sections], name);
}

async function discover({ fleet, clock, signal }: Examination): Promise<Snapshot> {
  const late = (): Error => new Error('late');
  await within({ clock, ms: FLEET_LIMIT_MS, late, signal }, async (cut) => {
    await fleet.ready();
    await fleet.refresh(cut);
  }).catch(() => signal.throwIfAborted());
  return fleet.snapshot();
}

function instancesOf(snapshot: Snapshot, { settings, configPath, clock }: Examination): readonly Check[] {
  const { registryDir, stateDir } = settings;
  const checks = instanceChecks(snapshot, { registryDir, stateDir, configFile: configPath }, clock.now());
  return checks.length > 0
    ? checks
    : [check('-', 'instances', 'none found; start opencode-connected in a project of yours')];
}

/** The section, or one broken line if `work` fails or takes too long. */
export async function boundedSection(
  section: Pick<Section, 'id' | 'title'>,
  { clock, signal }: Pick<Examination, 'clock' | 'signal'>,
  work: (cut: AbortSignal) => Promise<readonly Check[]>,
): Promise<Section> {
  const late = (): Error => new Error(`no answer within ${DOCTOR_LIMIT_MS / 1000} s`);
  try {
    return { ...section, checks: await within({ clock, ms: DOCTOR_LIMIT_MS, late, signal }, work) };
  } catch (error) {
    signal.throwIfAborted();
    return { ...section, checks: [check('broken', section.title, `could not be checked: ${reasonOf(error)}`)] };
  }
}
