import { type CommandOptions, type ExitCode, type Registries, registriesOf } from '../status/places.ts';
import { messageOf } from '../../base/errors.ts';
import { shown } from '../shown.ts';
import type { RemovalOrder } from '../survey/registry-survey.ts';
import type { Action, Finding } from './finding.ts';
import { findLeftovers } from './find-leftovers.ts';
import { endTunnel, removeState } from './wrappers.ts';

export interface CleanupOptions extends CommandOptions {
  readonly dryRun: boolean;
}

/**
 * Removes what this user's instances left behind, here and on the relay: registrations, claims, passwords, state files, tunnels. Lists
 * everything first, and removes only what is provably dead. Exit code 1 if something could not be read or removed.
 */
export async function runCleanup(options: CleanupOptions): Promise<ExitCode> {
  const { settings, signal, out, dryRun } = options;
  const registries = registriesOf(settings);
  const { findings, here, relay } = await findLeftovers(settings, registries, signal);
  out(listing(findings));
  if (typeof here === 'string') out(`This machine's registry directory could not be read: ${here}.\n`);
  if (typeof relay === 'string') out(`The relay could not be read, and nothing is removed there: ${relay}.\n`);
  const dead = findings.filter(({ action }) => action !== undefined);
  if (dryRun && dead.length > 0) out('Nothing was removed (--dry-run).\n');
  const failures = dryRun ? 0 : await removeAll(dead, { ...options, ...registries });
  return failures > 0 || typeof here === 'string' || typeof relay === 'string' ? 1 : 0;
}

function listing(findings: readonly Finding[]): string {
  const dead = findings.filter(({ action }) => action !== undefined);
  const left = findings.filter(({ action }) => action === undefined);
  const lines = [
    dead.length === 0 ? 'Nothing is provably dead.' : 'Dead:',
    ...dead.map(line),
    ...(left.length === 0 ? [] : ['Left alone, because not provably dead or not yours:', ...left.map(line)]),
  ];
  return `${lines.join('\n')}\n`;
}

function line(finding: Finding): string {
  return `  ${title(finding)}\n    ${finding.reason}`;
}

function title({ where, what, subject }: Finding): string {
  return `${where === 'relay' ? 'relay: ' : ''}${what} ${subject}`;
}

type Removing = CleanupOptions & Registries;

/**
 * Removes first on the relay, in one connection, then here; state files last, since they prove that the rest is dead. Resolves to the
 * number of findings that could not be removed.
 */
async function removeAll(dead: readonly Finding[], removing: Removing): Promise<number> {
  const { out, signal } = removing;
  const sorted = [...dead].toSorted((one, other) => rank(one) - rank(other));
  const onRelay = sorted.filter(({ where }) => where === 'relay');
  const left = await removeOnRelay(onRelay, removing);
  let failures = left.length;
  /** Ids of instances of which something could not be removed. */
  const unfinished = new Set(left.map(({ id }) => id));
  for (const finding of sorted.filter(({ where }) => where === 'here')) {
    if (signal.aborted) {
      out('Interrupted; the rest was left.\n');
      return failures + 1;
    }
    const proves = finding.what === 'state file' && finding.id !== undefined && unfinished.has(finding.id);
    const problem = proves
      ? 'kept as proof that the rest, which could not be removed, is dead'
      : await removeHere(finding, removing).catch((error: unknown) => messageOf(error));
    out(outcome(finding, problem));
    if (problem === undefined) continue;
    failures += 1;
    unfinished.add(finding.id);
  }
  return failures;
}

/** A registration is removed before its password. */
function rank({ what }: Finding): number {
  return ['registration', 'claim', 'password', 'tunnel', 'state file'].indexOf(what);
}

function outcome(finding: Finding, problem: string | undefined): string {
  return problem === undefined ? `Removed ${title(finding)}\n` : `Left ${title(finding)}: ${problem}\n`;
}

/** Resolves to the findings that could not be removed. */
async function removeOnRelay(
  findings: readonly Finding[],
  { relay, out, signal }: Removing,
): Promise<readonly Finding[]> {
  const orders = findings.flatMap(({ action }) => (action !== undefined && isOrder(action) ? [action] : []));
  if (relay === undefined || orders.length === 0) return [];
  const removals = await relay.remove(orders, signal).catch((error: unknown) => messageOf(error));
  const problems = findings.map((_, index) => {
    if (typeof removals === 'string') return removals;
    const one = removals[index];
    return one?.removed === true ? undefined : shown(one?.reason ?? 'it did not report a result');
  });
  findings.forEach((finding, index) => out(outcome(finding, problems[index])));
  return findings.filter((_, index) => problems[index] !== undefined);
}

async function removeHere({ action }: Finding, { settings, here, signal }: Removing): Promise<string | undefined> {
  if (action === undefined) return 'it is not provably dead';
  if (action.kind === 'state') return removeState(action.file, settings.stateDir);
  if (action.kind === 'tunnel') return endTunnel(action.file, action.pid, settings.stateDir);
  const [removal] = await here.remove([action], signal);
  return removal?.removed === false ? removal.reason : undefined;
}

function isOrder(action: Action): action is RemovalOrder {
  return action.kind === 'registration' || action.kind === 'password';
}
