import { listenerOn } from '../start/port.ts';
import { type CommandOptions, type ExitCode, type Surveyors, withSurveyors } from '../status/places.ts';
import { messageOf } from '../../base/errors.ts';
import type { Finding } from './finding.ts';
import { look } from './look.ts';
import { endTunnel, removeState } from './wrappers.ts';

export interface CleanupOptions extends CommandOptions {
  /** Only tells what would be removed. */
  readonly dryRun: boolean;
}

/**
 * Removes what instances of this user left behind, here and on the relay: registrations, claims, passwords, state files, tunnels.
 * Only what is provably dead; everything is listed before. 1 where something could not be looked at or removed.
 */
export async function runCleanup(options: CleanupOptions): Promise<ExitCode> {
  const { settings, signal, out, dryRun } = options;
  return withSurveyors(settings, signal, async (surveyors) => {
    const { findings, here, relay } = await look(settings, surveyors);
    out(listing(findings));
    if (typeof here === 'string') out(`This machine's registry directory was not looked at: ${here}.\n`);
    if (typeof relay === 'string') out(`The relay was not looked at: ${relay}.\n`);
    const dead = findings.filter(({ action }) => action !== undefined);
    if (dryRun && dead.length > 0) out('Nothing was removed (--dry-run).\n');
    const failures = dryRun ? 0 : await removeAll(dead, { ...options, ...surveyors });
    return failures > 0 || typeof here === 'string' || typeof relay === 'string' ? 1 : 0;
  });
}

function listing(findings: readonly Finding[]): string {
  const dead = findings.filter(({ action }) => action !== undefined);
  const left = findings.filter(({ action }) => action === undefined);
  const lines = [
    dead.length === 0 ? 'Nothing is provably dead.' : 'Dead:',
    ...dead.map(line),
    ...(left.length === 0 ? [] : ['Left, since it is not provably dead or not of this user:', ...left.map(line)]),
  ];
  return `${lines.join('\n')}\n`;
}

function line(finding: Finding): string {
  return `  ${title(finding)}\n    ${finding.reason}`;
}

function title({ where, what, subject }: Finding): string {
  return `${where === 'relay' ? 'relay: ' : ''}${what} ${subject}`;
}

type Removing = CleanupOptions & Surveyors;

/** In the order of the findings: a registration before its password, and the state file, which proves the rest, last. Gives how many were left. */
async function removeAll(dead: readonly Finding[], removing: Removing): Promise<number> {
  const { out, signal } = removing;
  /** Instances of which something could not be removed. */
  const unfinished = new Set<string | undefined>();
  let failures = 0;
  for (const finding of [...dead].toSorted((one, other) => rank(one) - rank(other))) {
    if (signal.aborted) {
      out('Interrupted; the rest was left.\n');
      return failures + 1;
    }
    const proves = finding.what === 'state file' && finding.id !== undefined && unfinished.has(finding.id);
    const problem = proves
      ? 'it proves that what could not be removed is dead'
      : await removeOne(finding, removing).catch((error: unknown) => messageOf(error));
    out(problem === undefined ? `Removed ${title(finding)}\n` : `Left ${title(finding)}: ${problem}\n`);
    if (problem === undefined) continue;
    failures += 1;
    if (finding.where === 'here') unfinished.add(finding.id);
  }
  return failures;
}

function rank({ what }: Finding): number {
  return ['registration', 'claim', 'password', 'tunnel', 'state file'].indexOf(what);
}

/** Gives the reason where it was left. */
async function removeOne({ where, action }: Finding, removing: Removing): Promise<string | undefined> {
  const { settings, here, relay } = removing;
  const session = where === 'relay' ? relay : here;
  if (action === undefined || session === undefined) return 'it is not provably dead';
  switch (action.kind) {
    case 'remove': {
      const { port } = action.dead;
      const isSilent = where === 'here' && (port === 0 || (await listenerOn(port)) === 'none');
      if (where === 'here' && !isSilent) return 'something listens on its port again';
      const answer = await session.remove({ ...action.dead, vouched: isSilent });
      return answer.removed ? undefined : answer.reason;
    }
    case 'forget': {
      const answer = await session.forget(action.id, action.age);
      return answer.removed ? undefined : answer.reason;
    }
    case 'state':
      return removeState(action.file, settings.stateDir);
    case 'tunnel':
      return endTunnel(action.file, action.pid, settings.stateDir);
  }
}
