import { dirname, join, parse, sep } from 'node:path';
import type { BigIntStats } from 'node:fs';
import { quoteShort, shellWord, singleLine } from '../../base/plain-text.ts';
import { octalMode, runAs } from '../../base/errors.ts';
import type { FileSystem } from '../folder/file-system.ts';
import type { Trust } from '../../model/candidate.ts';

/** Linux follows as many. */
const MAX_LINKS = 40;
/** Enough for any path a person made; PATH_MAX would fill a screen. */
const MAX_SHOWN_CHARS = 300;
const GROUP_OR_OTHERS_WRITE = 0o022n;
const STICKY = 0o1000n;

export interface TrustRules {
  /** The directory was configured, so it may belong to another user. */
  readonly explicit: boolean;
  /** This user's; undefined on systems without user ids. */
  readonly uid: number | undefined;
}

export interface InspectedDirectory {
  /** With every symbolic link resolved. */
  readonly path: string;
  readonly stats: BigIntStats;
  readonly ownerUid: number;
  readonly trust: Trust;
}

interface Step {
  readonly path: string;
  readonly stats: BigIntStats;
}

/**
 * Resolves the absolute `path` and checks that only its owner, root and this user can change what
 * is in it. Rejects with the system's error if it cannot be reached or is not a directory.
 */
export async function inspectDirectory(path: string, rules: TrustRules, fs: FileSystem): Promise<InspectedDirectory> {
  const { directory, ancestors, links } = await walk(path, fs);
  const problem = directoryProblem(directory, ancestors, links, rules);
  return {
    path: directory.path,
    stats: directory.stats,
    ownerUid: Number(directory.stats.uid),
    trust: problem === undefined ? { level: 'trusted' } : { level: 'untrusted', reason: problem },
  };
}

/** Why a file in a trusted directory is untrusted, or undefined. */
export function fileProblem(path: string, stats: BigIntStats, directory: InspectedDirectory): string | undefined {
  if (Number(stats.uid) !== directory.ownerUid) {
    return `${shown(path)} belongs to uid ${stats.uid}, not to the owner of its directory (uid ${directory.ownerUid}); remove it if you did not put it there`;
  }
  return writableProblem(path, stats);
}

function directoryProblem(
  directory: Step,
  ancestors: readonly Step[],
  links: readonly Step[],
  rules: TrustRules,
): string | undefined {
  const { explicit, uid } = rules;
  if (uid === undefined) return `the owner of ${shown(directory.path)} cannot be checked on this system`;
  const owner = Number(directory.stats.uid);
  if (owner !== uid && !explicit) {
    // Root can read the passwords in it; any other user would fail at those next.
    const advice = uid === 0 ? 'if you trust that user, set RELAY_REGISTRY_DIR to it' : runAs(directory.stats);
    return `${shown(directory.path)} belongs to uid ${owner}, not to this user (uid ${uid}); ${advice}`;
  }
  const safeOwners = new Set([0, owner, uid]);
  const problems = [
    writableProblem(directory.path, directory.stats),
    ...ancestors.map((ancestor) => ancestorProblem(ancestor, directory.path, safeOwners)),
    ...links.map((link) => linkProblem(link, directory.path, safeOwners)),
  ];
  return problems.find((problem) => problem !== undefined);
}

function ancestorProblem(
  { path, stats }: Step,
  directory: string,
  safeOwners: ReadonlySet<number>,
): string | undefined {
  const subject = `${shown(path)}, on the path to ${shown(directory)},`;
  const facts = `(mode ${octalMode(stats.mode)}, uid ${stats.uid})`;
  if (!safeOwners.has(Number(stats.uid)))
    return `${subject} belongs to another user ${facts}, who can put another directory in its place; move the registry`;
  if ((stats.mode & GROUP_OR_OTHERS_WRITE) === 0n || (stats.mode & STICKY) !== 0n) return undefined;
  return `${subject} can be written by its group or by others ${facts}; run: ${chmodCommand(path)}`;
}

function linkProblem({ path, stats }: Step, directory: string, safeOwners: ReadonlySet<number>): string | undefined {
  if (safeOwners.has(Number(stats.uid))) return undefined;
  return `the symbolic link ${shown(path)} on the path to ${shown(directory)} belongs to another user (uid ${stats.uid}); name the directory itself`;
}

function writableProblem(path: string, stats: BigIntStats): string | undefined {
  if ((stats.mode & GROUP_OR_OTHERS_WRITE) === 0n) return undefined;
  // A shared folder such as /tmp must stay writable.
  const advice =
    (stats.mode & STICKY) === 0n ? 'run' : 'name a folder of its own, or, if it holds registrations only, run';
  return `${shown(path)} can be written by its group or by others (mode ${octalMode(stats.mode)}, uid ${stats.uid}); ${advice}: ${chmodCommand(path)}`;
}

/** The command that takes the right to write from its group and from others. */
function chmodCommand(path: string): string {
  return `chmod go-w ${shellWord(singleLine(path, MAX_SHOWN_CHARS))}`;
}

/**
 * Follows `path` one component at a time. `realpath` is not enough: a user who can change a link, or
 * the folder it is in, decides where the path leads.
 */
async function walk(path: string, fs: FileSystem): Promise<{ directory: Step; ancestors: Step[]; links: Step[] }> {
  const { root } = parse(path);
  const passed = new Map<string, BigIntStats>();
  const links: Step[] = [];
  const pending = parts(path.slice(root.length));
  let here = root;
  passed.set(root, await fs.lstat(root));
  for (let part = pending.shift(); part !== undefined; part = pending.shift()) {
    if (part === '..') {
      here = dirname(here);
      continue;
    }
    const next = join(here, part);
    const stats = await fs.lstat(next);
    if (stats.isSymbolicLink()) {
      if (links.push({ path: next, stats }) > MAX_LINKS)
        throw systemError('ELOOP', `more than ${MAX_LINKS} symbolic links`);
      const target = await fs.readlink(next);
      const { root: targetRoot } = parse(target);
      pending.unshift(...parts(target.slice(targetRoot.length)));
      if (targetRoot !== '') here = targetRoot;
      continue;
    }
    if (!stats.isDirectory()) throw systemError('ENOTDIR', `${shown(next)} is not a directory`);
    passed.set(next, stats);
    here = next;
  }
  const steps = [...passed].map(([step, stats]) => ({ path: step, stats }));
  const directory = steps.find((step) => step.path === here);
  if (!directory) throw new Error(`Expected to have passed ${shown(here)}`);
  return { directory, ancestors: steps.filter((step) => step !== directory), links };
}

function parts(path: string): string[] {
  return path.split(sep).filter((part) => part !== '' && part !== '.');
}

function systemError(code: string, message: string): Error {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}

function shown(path: string): string {
  return quoteShort(path, MAX_SHOWN_CHARS);
}
