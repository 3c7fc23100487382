import { chmodSync, chownSync, lchownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { needRoot } from './as-root.ts';
import { notesOn, registrySource } from './registry-stage.ts';

const never = new AbortController().signal;
const ALICE = 1000;
const MALLORY = 1001;
const ROOT = 0;

/** Creates a registry in an empty folder that only root can change; returns the path to configure. */
type Make = (top: string) => string;

interface Case {
  readonly name: string;
  /** Default: `reg`, owned by Alice. */
  readonly make?: Make;
  /** Default: Alice. */
  readonly uid?: number;
  /** Default: true. */
  readonly explicit?: boolean;
  /** The reason; absent if trusted. */
  readonly untrusted?: RegExp;
}

/** A registry of `owner` with one registration of the same owner. */
function makeRegistry(path: string, owner: number, mode = 0o755, fileMode = 0o644): string {
  mkdirSync(path);
  const file = join(path, 'a.json');
  writeFileSync(file, '{"name":"a","port":4096,"id":"i1"}');
  chmodSync(file, fileMode);
  chownSync(file, owner, owner);
  chownSync(path, owner, owner);
  chmodSync(path, mode);
  return path;
}

function makeFolder(path: string, owner: number, mode: number): string {
  mkdirSync(path);
  chownSync(path, owner, owner);
  chmodSync(path, mode);
  return path;
}

function makeLink(target: string, path: string, owner: number): string {
  symlinkSync(target, path);
  lchownSync(path, owner, owner);
  return path;
}

const ofOwner =
  (owner: number, mode?: number, fileMode?: number): Make =>
  (top) =>
    makeRegistry(join(top, 'reg'), owner, mode, fileMode);
const ofAlice = ofOwner(ALICE);
/** Alice's registry, in a folder of `owner`. */
const below =
  (owner: number, mode = 0o755): Make =>
  (top) =>
    ofAlice(makeFolder(join(top, 'up'), owner, mode));
/** A link of `owner` to Alice's registry. */
const behindLink =
  (owner: number): Make =>
  (top) =>
    makeLink(ofAlice(top), join(top, 'link'), owner);

const cases: readonly Case[] = [
  { name: 'the default one, of this user', explicit: false },
  { name: 'one closed to all other users', make: ofOwner(ALICE, 0o700, 0o600) },
  { name: 'the default one, of root, read by root', make: ofOwner(ROOT), uid: ROOT, explicit: false },
  {
    name: 'the default one, of another user, read by root',
    uid: ROOT,
    explicit: false,
    untrusted: /reg belongs to uid 1000, not to this user \(uid 0\); .*set RELAY_REGISTRY_DIR/,
  },
  {
    name: 'the default one, of another user, read by a user who cannot read its passwords',
    uid: MALLORY,
    explicit: false,
    untrusted:
      /reg belongs to uid 1000, not to this user \(uid 1001\); run this as uid 1000 \(docker run --user 1000:\d+\)$/,
  },
  { name: 'a configured one, of another user, read by root', uid: ROOT },
  { name: 'a configured one, of root', make: ofOwner(ROOT) },
  {
    name: 'one that its group can write',
    make: ofOwner(ALICE, 0o775),
    untrusted: /reg can be written by its group or by others \(mode 0775, uid 1000\); run: chmod go-w \S*reg$/,
  },
  {
    name: 'one that all can write',
    make: ofOwner(ALICE, 0o757),
    untrusted: /\(mode 0757, uid 1000\); run: chmod go-w/,
  },
  {
    name: 'a sticky one that all can write',
    make: ofOwner(ALICE, 0o1777),
    untrusted: /\(mode 1777, uid 1000\); name a folder of its own, or, if it holds registrations only, run: chmod go-w/,
  },
  {
    name: 'one below a folder that its group can write',
    make: below(ROOT, 0o775),
    untrusted: /up, on the path to .*, can be written .*mode 0775.*run: chmod go-w \S*up$/,
  },
  {
    name: 'one two levels below a folder that all can write',
    make: (top) => ofAlice(makeFolder(join(makeFolder(join(top, 'up'), ROOT, 0o777), 'mid'), ALICE, 0o755)),
    untrusted: /up, on the path to/,
  },
  { name: 'one below a sticky folder that all can write', make: below(ROOT, 0o1777) },
  {
    name: 'one below a folder of a third user',
    make: below(MALLORY),
    untrusted: /up, on the path to .*, belongs to another user \(mode 0755, uid 1001\)/,
  },
  { name: 'one of another user, below a folder of this user', make: below(MALLORY), uid: MALLORY },
  { name: 'one of another user, below a folder of its owner', make: below(ALICE), uid: MALLORY },
  { name: 'one behind a link of root', make: behindLink(ROOT) },
  { name: 'one behind a link of its owner, read by root', make: behindLink(ALICE), uid: ROOT },
  { name: 'one of another user, behind a link of this user', make: behindLink(MALLORY), uid: MALLORY },
  {
    name: 'one behind a relative link',
    make: (top) => {
      const x = makeFolder(join(top, 'x'), ROOT, 0o755);
      ofAlice(x);
      return makeLink('../x/reg', join(x, 'link'), ROOT);
    },
  },
  {
    name: 'one behind a link of a third user',
    make: behindLink(MALLORY),
    untrusted:
      /the symbolic link .*link on the path to .*reg belongs to another user \(uid 1001\); name the directory itself/,
  },
  {
    name: 'one behind a link of a third user to a folder above it',
    make: (top) => {
      below(ROOT)(top);
      return join(makeLink(join(top, 'up'), join(top, 'middle'), MALLORY), 'reg');
    },
    untrusted: /the symbolic link .*middle on the path to/,
  },
  {
    name: 'one behind a link of this user in a folder that all can write',
    make: (top) => makeLink(ofAlice(top), join(makeFolder(join(top, 'open'), ROOT, 0o777), 'link'), ALICE),
    untrusted: /open, on the path to .*reg, can be written/,
  },
  {
    name: 'one whose name needs quotes',
    make: (top) => makeRegistry(join(top, "it's a reg"), ALICE, 0o777),
    untrusted: /run: chmod go-w '\S*it'\\''s a reg'$/,
  },
];

describe('a registry directory', () => {
  let top: TempDir;
  beforeEach(() => {
    top = tempDir('trust');
    chmodSync(top.path, 0o755);
  });
  afterEach(() => top.close());

  const verdicts = cases.map((one) => ({ ...one, verdict: one.untrusted ? 'untrusted' : 'trusted' }));
  it.for(verdicts)(
    '$name is $verdict',
    async ({ make = ofAlice, uid = ALICE, explicit = true, untrusted }, context) => {
      needRoot(context);
      const { candidates, notes } = await registrySource(make(top.path), { uid, explicit }).scan(never);
      const trust = untrusted ? { level: 'untrusted', reason: expect.stringMatching(untrusted) } : { level: 'trusted' };
      expect(candidates.map((candidate) => candidate.trust)).toEqual([trust]);
      expect(candidates.map(({ credential }) => credential !== undefined)).toEqual([!untrusted]);
      expect(notes.map(({ reason }) => reason)).toEqual(untrusted ? [expect.stringMatching(/^untrusted: /)] : []);
    },
  );

  it('is untrusted on a system without user ids', async () => {
    const { candidates } = await registrySource(ofAlice(top.path), { uid: undefined }).scan(never);
    expect(candidates[0]).toMatchObject({
      trust: { reason: expect.stringMatching(/cannot be checked on this system/) },
    });
  });

  const files: readonly { name: string; spoil: (file: string) => void; untrusted: RegExp }[] = [
    {
      name: 'belongs to another user',
      spoil: (file) => chownSync(file, MALLORY, MALLORY),
      untrusted: /bad.json belongs to uid 1001, not to the owner of its directory \(uid 1000\); remove it/,
    },
    {
      name: 'belongs to root',
      spoil: (file) => chownSync(file, ROOT, ROOT),
      untrusted: /bad.json belongs to uid 0, not to the owner/,
    },
    {
      name: 'can be written by its group',
      spoil: (file) => chmodSync(file, 0o664),
      untrusted: /bad.json can be written .*mode 0664, uid 1000\); run: chmod go-w \S*bad.json/,
    },
  ];
  it.for(files)('does not make a file trusted that $name', async ({ spoil, untrusted }, context) => {
    needRoot(context);
    const path = ofAlice(top.path);
    const file = join(path, 'bad.json');
    writeFileSync(file, '{"name":"bad","port":4097,"id":"i2"}', { mode: 0o644 });
    chownSync(file, ALICE, ALICE);
    spoil(file);
    const scan = await registrySource(path, { uid: ROOT }).scan(never);
    expect(scan.candidates.map(({ trust }) => trust)).toEqual([
      { level: 'trusted' },
      { level: 'untrusted', reason: expect.stringMatching(untrusted) },
    ]);
    expect(scan.candidates[1]).not.toHaveProperty('credential');
    expect(notesOn(scan, '/bad.json')).toMatch(untrusted);
  });

  it('is checked again by each scan', async () => {
    const path = join(top.path, 'reg');
    mkdirSync(path, 0o755);
    writeFileSync(join(path, 'a.json'), '{"port":4096}', { mode: 0o644 });
    const source = registrySource(path);
    const level = async (): Promise<string | undefined> => (await source.scan(never)).candidates[0]?.trust.level;
    expect(await level()).toBe('trusted');
    chmodSync(path, 0o777);
    expect(await level()).toBe('untrusted');
    chmodSync(path, 0o755);
    expect(await level()).toBe('trusted');
    chmodSync(join(path, 'a.json'), 0o666);
    expect(await level()).toBe('untrusted');
  });
});
