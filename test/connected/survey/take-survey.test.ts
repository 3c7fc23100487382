import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { beforeEach, describe, expect, it } from 'vitest';

import { chooseDirectory } from '../../../src/connected/survey/registry-place.ts';
import { registrySurvey } from '../../../src/connected/survey/registry-survey.ts';
import { takeSurvey } from '../../../src/connected/survey/take-survey.ts';
import { asUser, needRoot } from '../../discovery/as-root.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { HOUR_MS, openRemains, type Remains } from '../cleanup/remains.ts';

const never = new AbortController().signal;
const NOBODY = 65_534;

let remains: Remains;
beforeEach(async () => {
  remains = await openRemains();
});

const survey = (): ReturnType<typeof takeSurvey> => takeSurvey(remains.registry, never);

describe('a survey of a registry directory', () => {
  it('lists registrations, claims and the ids of passwords', async () => {
    const { pid } = await remains.process();
    const held = await remains.register('held', { claim: { pid }, password: true });
    await remains.register('lost', { claim: 'dead', id: 'id-lost' });
    await remains.password('id-lost', { ageMs: 2 * HOUR_MS });
    const surveyed = await survey();
    expect(surveyed).toMatchObject({ directory: remains.registry, isMissing: false, isOursAlone: true, leftOut: 0 });
    expect(surveyed.registrations.map(({ name, isMine, registration }) => [name, isMine, registration.id])).toEqual([
      ['held', true, held.id],
      ['lost', true, 'id-lost'],
    ]);
    expect(surveyed.claims).toMatchObject([
      { name: 'held', isMine: true, holder: 'alive', id: held.id, pid },
      { name: 'lost', isMine: true, holder: 'dead', id: 'id-lost' },
    ]);
    expect(surveyed.passwords).toEqual([
      { id: held.id, isMine: true, isOld: false },
      { id: 'id-lost', isMine: true, isOld: true },
    ]);
    expect(JSON.stringify(surveyed)).not.toContain('secret');
    expect(registrySurvey.parse(JSON.parse(JSON.stringify(surveyed)))).toEqual(JSON.parse(JSON.stringify(surveyed)));
  });

  it('reports for each registration whether something listens on its port', async () => {
    const { port, close } = await listenHttp(() => {});
    await remains.register('app', { port });
    expect((await survey()).registrations).toMatchObject([{ listens: 'some' }]);
    await close();
    expect((await survey()).registrations).toMatchObject([{ listens: 'none' }]);
  });

  it.each([
    ['a claim of another machine', 'id-app 7 1 elsewhere', 'elsewhere'],
    ['a claim whose process has ended and whose pid was reused', `id-app ${process.pid} 12 ${hostname()}`, 'dead'],
    ['a claim without a pid', 'id-app x 1 here', 'unknown'],
    ['a claim without a machine', 'id-app 7 1', 'unknown'],
    ['an empty claim', '', 'unknown'],
  ])('reports the holder of %s', async (_, line, holder) => {
    await writeFile(join(remains.registry, '.app.claim'), `${line}\n`);
    expect((await survey()).claims).toMatchObject([{ name: 'app', holder, line }]);
  });

  it('lists unreadable files with the reason', async () => {
    await writeFile(join(remains.registry, 'large.json'), 'x'.repeat(70_000));
    await writeFile(join(remains.registry, 'half.json'), '{"na');
    await writeFile(
      Buffer.concat([Buffer.from(`${remains.registry}/`), Buffer.from([0xff]), Buffer.from('.json')]),
      '{}',
    );
    await mkdir(join(remains.registry, 'folder.json'));
    for (const name of ['link.json', '.link.claim']) await symlink('/etc/passwd', join(remains.registry, name));
    await promisify(execFile)('mkfifo', [join(remains.registry, 'pipe.json'), join(remains.registry, '.pipe.claim')]);
    const { odd, registrations, claims } = await survey();
    expect([registrations, claims]).toEqual([[], []]);
    expect(odd.map(({ fileName, reason }) => `${fileName} ${reason}`)).toEqual([
      expect.stringMatching(/^folder.json is a folder/),
      expect.stringMatching(/^half.json is not complete JSON/),
      expect.stringMatching(/^large.json has 70000 bytes/),
      expect.stringMatching(/^link.json is a symbolic link/),
      expect.stringMatching(/^pipe.json is a FIFO/),
      expect.stringMatching(/^\ufffd.json its name is not UTF-8/),
    ]);
  });

  it('does not follow a symbolic link to the passwords folder', async () => {
    await rm(join(remains.registry, '.credentials'), { recursive: true });
    await mkdir(join(remains.path, 'outside'));
    await writeFile(join(remains.path, 'outside', 'id-app'), 'a secret\n');
    await symlink(join(remains.path, 'outside'), join(remains.registry, '.credentials'));
    expect((await survey()).passwords).toEqual([]);
  });

  it('marks files of another user and files that it cannot read', async (context) => {
    needRoot(context);
    await remains.register('app', { claim: 'dead' });
    await remains.register('foreign', { claim: 'dead', password: true, id: 'id-foreign' });
    for (const name of ['foreign.json', '.foreign.claim', '.credentials/id-foreign'])
      await chown(join(remains.registry, name), NOBODY, NOBODY);
    await chmod(join(remains.registry, 'app.json'), 0o600);
    await chmod(remains.path, 0o755);
    await chmod(remains.registry, 0o755);
    const own = await survey();
    expect(own.registrations.map(({ name, isMine, ownerUid }) => [name, isMine, ownerUid])).toEqual([
      ['app', true, 0],
      ['foreign', false, NOBODY],
    ]);
    expect(own.claims).toMatchObject([{ name: 'app' }, { name: 'foreign', isMine: false, holder: 'unknown' }]);
    expect(own.passwords).toEqual([{ id: 'id-foreign', isMine: false, isOld: false }]);
    const asNobody = await asUser(NOBODY, survey);
    expect(asNobody).toMatchObject({ isOursAlone: false, registrations: [{ name: 'foreign', isMine: true }] });
    expect(asNobody.odd).toMatchObject([{ fileName: 'app.json', reason: expect.stringContaining('EACCES') }]);
    expect(asNobody.claims[0]).toMatchObject({ name: 'app', isMine: false, holder: 'unknown' });
    await chmod(remains.registry, 0o300);
    await expect(asUser(NOBODY, survey)).rejects.toThrow(/cannot read the registry directory .*belongs to uid 0/);
  });

  it.each([
    ['its group can write in it', 0o770],
    ['others can write in it', 0o702],
  ])('marks the directory as not ours alone if %s', async (_, mode) => {
    await chmod(remains.registry, mode);
    expect(await survey()).toMatchObject({ isOursAlone: false });
  });

  it('is empty if the directory is missing, and does not create the directory', async () => {
    await rm(remains.registry, { recursive: true });
    expect(await survey()).toMatchObject({ isMissing: true, directory: remains.registry, registrations: [] });
    expect(await readdir(remains.path)).not.toContain('registry');
  });

  it('fails if the path of the directory is a file', async () => {
    await rm(remains.registry, { recursive: true });
    await writeFile(remains.registry, '');
    await expect(survey()).rejects.toThrow(/is no directory; remove it, or set another/);
  });
});

describe('the registry directory', () => {
  const choose = (path: string, explicit = true): Promise<string> =>
    chooseDirectory({ registryDir: { path, explicit }, stateDir: remains.stateDir });

  it('must be absolute or begin with ~', async () => {
    expect(await choose('~/registry')).toBe(join(homedir(), 'registry'));
    await expect(choose('registry')).rejects.toThrow(/expected an absolute registry directory/);
  });

  it('is in the state directory if another user owns the default, and stays there', async (context) => {
    needRoot(context);
    const own = join(remains.stateDir, 'registry');
    expect(await choose(remains.registry, false)).toBe(remains.registry);
    await chown(remains.registry, NOBODY, NOBODY);
    expect(await choose(remains.registry, false)).toBe(own);
    expect(await choose(remains.registry)).toBe(remains.registry);
    await chown(remains.registry, 0, 0);
    await mkdir(own, { recursive: true });
    expect(await choose(remains.registry, false)).toBe(own);
  });
});
