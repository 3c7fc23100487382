import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { text as readAll } from 'node:stream/consumers';
import { promisify } from 'node:util';

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { systemClock } from '../../../src/base/clock.ts';
import { SURVEY_COMMAND } from '../../../src/connected/relay/relay-survey-program.ts';
import { openSurveySession, type SurveySession } from '../../../src/connected/relay/relay-survey-session.ts';
import { SurveyReader, type RegistrySurvey } from '../../../src/connected/relay/relay-survey.ts';
import { ManualClock } from '../../fleet/manual-clock.ts';
import { needRoot, run } from '../../discovery/as-root.ts';
import { descendantsOf, needSshd, startSshd, type Sshd } from '../../rig/sshd.ts';
import { tempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';
import { HOUR_MS, openRemains, type Remains } from '../cleanup/remains.ts';

const execute = promisify(execFile);
const never = new AbortController().signal;

/** What runs the program as `sh`, and the login shell that runs the command. */
const SHELLS: ReadonlyArray<readonly [string, string, string]> = [
  ['dash as sh', 'dash', 'dash'],
  ['busybox as everything', 'busybox', 'sh'],
  ['bash as sh', 'bash', 'bash'],
  ['csh as the login shell', 'dash', 'csh'],
  ['fish as the login shell', 'dash', 'fish'],
];

describe.each(SHELLS)('the survey program, with %s', (_, shell, loginShell) => {
  let remains: Remains;
  let path: string;

  beforeEach(async ({ skip }) => {
    for (const program of [shell, loginShell]) {
      const isOptional = program === 'csh' || program === 'fish';
      const isThere = (await pathOf(program)) !== '';
      if (!isThere && !isOptional && process.env['CI'] === 'true')
        throw new Error(`Expected ${program}, because CI=true`);
      skip(!isThere, `needs ${program}`);
    }
    remains = await openRemains();
    const bin = join(remains.path, 'bin');
    await mkdir(bin);
    const program = await pathOf(shell);
    const applets =
      shell === 'busybox' ? (await execute(program, ['--list'])).stdout.split('\n').filter(Boolean) : ['sh'];
    await Promise.all(applets.map((applet) => symlink(program, join(bin, applet))));
    path = shell === 'busybox' ? bin : `${bin}:${process.env['PATH'] ?? ''}`;
  });
  afterEach(async () => {
    await remains?.[Symbol.asyncDispose]();
  });

  /** What the program says to these lines. */
  async function say(lines: readonly string[], options: { readonly uid?: number } = {}): Promise<string[]> {
    const child = spawn('env', [loginShell, '-c', SURVEY_COMMAND], {
      env: { PATH: path, HOME: remains.path },
      // fish complains where it cannot write in its home.
      stdio: ['pipe', 'pipe', 'ignore'],
      ...options,
    });
    child.stdin.end(lines.map((line) => `${line}\n`).join(''));
    const answer = await readAll(child.stdout.setEncoding('latin1'));
    return answer.split('\n').filter(Boolean);
  }

  async function survey(options: { readonly uid?: number } = {}): Promise<RegistrySurvey> {
    const reader = new SurveyReader();
    let found: RegistrySurvey | undefined;
    for (const line of await say([`directory ${remains.registry}`, 'survey'], options)) found ??= reader.take(line);
    if (found === undefined) throw new Error('the survey did not end');
    return found;
  }

  it('tells registrations, claims and passwords, and of passwords nothing but their names', async () => {
    const { pid = 0 } = await remains.process();
    const held = await remains.register('held', { claim: { pid }, password: true });
    await remains.register('lost', { claim: 'dead', id: 'id-lost' });
    await remains.password('id-lost', { ageMs: 2 * HOUR_MS });
    const found = await survey();
    expect(found).toMatchObject({ directory: remains.registry, missing: false, isOursAlone: true, total: 2 });
    expect(found.registrations.map(({ name, owner, registration }) => [name, owner, registration?.id])).toEqual([
      ['held', 'mine', held.id],
      ['lost', 'mine', 'id-lost'],
    ]);
    expect(found.claims.get('held')).toMatchObject({ mine: true, holder: 'alive', id: held.id, pid });
    expect(found.claims.get('lost')).toMatchObject({ mine: true, holder: 'dead', id: 'id-lost' });
    expect(found.passwords).toEqual([
      { id: held.id, mine: true, old: false },
      { id: 'id-lost', mine: true, old: true },
    ]);
    expect((await say([`directory ${remains.registry}`, 'survey'])).join('\n')).not.toContain('secret');
  });

  it('tells on which ports something listens', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = address !== null && typeof address === 'object' ? address.port : 0;
    expect((await survey()).ports?.has(port)).toBe(true);
    await new Promise((resolve) => server.close(resolve));
    expect((await survey()).ports?.has(port)).toBe(false);
  });

  it('tells files that it does not read', async () => {
    await writeFile(join(remains.registry, 'large.json'), 'x'.repeat(50_000));
    await writeFile(join(remains.registry, 'two\nlines.json'), '{}');
    await writeFile(
      Buffer.concat([Buffer.from(`${remains.registry}/`), Buffer.from([0xff]), Buffer.from('.json')]),
      '{}',
    );
    await mkdir(join(remains.registry, 'folder.json'));
    await symlink('/etc/passwd', join(remains.registry, 'link.json'));
    await symlink('/nowhere', join(remains.registry, 'broken.json'));
    await execute('mkfifo', [join(remains.registry, 'pipe.json'), join(remains.registry, '.pipe.claim')]);
    const { odd, registrations, claims } = await survey();
    expect(registrations).toEqual([]);
    expect([...claims]).toEqual([]);
    expect(odd.map(({ kind, fileName }) => `${fileName} ${kind}`).toSorted()).toEqual([
      ' line-break',
      'broken.json symlink',
      'folder.json special',
      'large.json large',
      'link.json symlink',
      'pipe.json special',
      '\ufffd.json not-utf-8',
    ]);
  });

  it('takes any bytes for what they are', async () => {
    const content = Buffer.from(Array.from({ length: 255 }, (_ignored, index) => index + 1));
    await writeFile(join(remains.registry, 'bytes.json'), content);
    await writeFile(join(remains.registry, 'done 1.json'), 'done 7\n> x\nport 0050\n\n');
    const { registrations } = await survey();
    const [bytes, done] = registrations;
    expect(Buffer.from(bytes?.content ?? '', 'latin1')).toEqual(
      Buffer.from(`> ${content.toString('latin1').replaceAll('\n', '\n> ')}`, 'latin1'),
    );
    expect(done).toMatchObject({ name: 'done 1', content: '> done 7\n> > x\n> port 0050\n> ' });
  });

  it("tells another user's files from ours, and what it may not read", async (context) => {
    needRoot(context);
    await remains.register('ours', { claim: 'dead' });
    await remains.register('theirs', { claim: 'dead', password: true, id: 'id-theirs' });
    for (const name of ['theirs.json', '.theirs.claim', '.credentials/id-theirs']) {
      await chown(join(remains.registry, name), 65_534, 65_534);
    }
    await chmod(join(remains.registry, 'ours.json'), 0o600);
    await chmod(remains.path, 0o755);
    await chmod(remains.registry, 0o755);
    const ours = await survey();
    expect(ours.registrations.map(({ name, owner }) => [name, owner])).toEqual([
      ['ours', 'mine'],
      ['theirs', 65_534],
    ]);
    expect(ours.claims.get('theirs')).toMatchObject({ mine: false, holder: 'unknown' });
    expect(ours.passwords).toEqual([{ id: 'id-theirs', mine: false, old: false }]);
    const theirs = await survey({ uid: 65_534 });
    expect(theirs).toMatchObject({
      uid: 65_534,
      isOursAlone: false,
      odd: [{ kind: 'unreadable', fileName: 'ours.json' }],
    });
    expect(theirs.registrations.map(({ name, owner }) => [name, owner])).toEqual([['theirs', 'mine']]);
    expect(theirs.claims.get('ours')).toMatchObject({ mine: false, holder: 'unknown' });
    await chmod(remains.registry, 0o300);
    const lines = await say([`directory ${remains.registry}`, 'survey'], { uid: 65_534 });
    expect(lines.at(-1)).toMatch(/^error cannot read the registry directory/);
  });

  it('tells where there is no directory, and makes none', async () => {
    await rm(remains.registry, { recursive: true });
    expect(await survey()).toMatchObject({ missing: true, directory: remains.registry, registrations: [] });
    expect(await readdir(remains.path)).not.toContain('registry');
  });

  it('takes ~/ for the home', async () => {
    expect((await say(['directory ~/registry', 'survey'])).join('\n')).toContain(`yes ${remains.registry}`);
    expect((await say(['directory registry', 'survey'])).at(-1)).toMatch(
      /^error expected an absolute registry directory/,
    );
  });

  /** The order to remove `name` as it is now. */
  async function removal(name: string): Promise<string> {
    const { registrations, claims } = await survey();
    const file = registrations.find((one) => one.name === name);
    const texts = [name, claims.get(name)?.line ?? '', file?.content ?? ''];
    return `remove ${texts.map((text) => `=${octal(text)}`).join(' ')} ${file?.registration?.port ?? 0} no`;
  }

  const answerTo = async (order: string): Promise<string | undefined> =>
    (await say([`directory ${remains.registry}`, order])).at(-1);

  it('tells no more registrations than are told, and how many there are', async () => {
    await Promise.all(
      Array.from({ length: 2_005 }, (_ignored, index) => writeFile(join(remains.registry, `app-${index}.json`), '{}')),
    );
    const lines = await say([`directory ${remains.registry}`, 'survey']);
    expect(lines.filter((line) => line.startsWith('registration '))).toHaveLength(2_000);
    expect(lines.at(-1)).toBe('done 2005');
  });

  it('reads no passwords through a link', async () => {
    await rm(join(remains.registry, '.credentials'), { recursive: true });
    await mkdir(join(remains.path, 'outside'));
    await writeFile(join(remains.path, 'outside', 'id-app'), 'a secret\n');
    await symlink(join(remains.path, 'outside'), join(remains.registry, '.credentials'));
    expect((await survey()).passwords).toEqual([]);
    expect(await answerTo('forget =id-app any')).toBe('kept there is no folder of passwords');
  });

  it('removes no registration that is held, nor one on whose port something listens', async () => {
    const { pid = 0 } = await remains.process();
    await remains.register('held', { claim: { pid } });
    expect(await answerTo(await removal('held'))).toBe('kept its claim is held');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = address !== null && typeof address === 'object' ? address.port : 0;
    await remains.register('listens', { claim: 'dead', port });
    expect(await answerTo(await removal('listens'))).toBe('kept something listens on its port again');
    await new Promise((resolve) => server.close(resolve));
    expect(await remains.files()).toEqual(['.held.claim', '.listens.claim', 'held.json', 'listens.json']);
  });

  it('moves nothing out of the way that is not what was surveyed', async () => {
    await remains.register('app', { claim: 'dead' });
    const order = await removal('app');
    await rm(join(remains.registry, 'app.json'));
    await mkdir(join(remains.registry, 'app.json', 'deep'), { recursive: true });
    expect(await answerTo(order)).toBe('kept it was written anew');
    expect(await readdir(join(remains.registry, 'app.json'))).toEqual(['deep']);
  });

  it('takes no link for the claim that was surveyed', async () => {
    await remains.register('app', { claim: 'dead' });
    const order = await removal('app');
    await rename(join(remains.registry, '.app.claim'), join(remains.path, 'claim'));
    await symlink(join(remains.path, 'claim'), join(remains.registry, '.app.claim'));
    expect(await answerTo(order)).toBe('kept its claim has changed');
  });

  it("removes nothing that has become another user's, and no password by a link", async (context) => {
    needRoot(context);
    await remains.register('app', { claim: 'dead', id: 'id-app', password: true });
    const order = await removal('app');
    await chown(join(remains.registry, 'app.json'), 65_534, 65_534);
    expect(await answerTo(order)).toBe('kept it was written anew');
    await remains.password('theirs');
    await chown(join(remains.registry, '.credentials', 'theirs'), 65_534, 65_534);
    expect(await answerTo('forget =theirs any')).toBe('kept it is not a file of this user');
    await symlink('/etc/passwd', join(remains.registry, '.credentials', 'link'));
    expect(await answerTo('forget =link any')).toBe('kept it is not a file of this user');
  });

  it('forgets nothing in a directory in which others can write', async () => {
    await remains.password('id-app');
    await chmod(remains.registry, 0o770);
    expect(await answerTo('forget =id-app any')).toMatch(/^kept others can write in the registry directory/);
    expect(await remains.files()).toEqual(['.credentials/id-app']);
  });

  it('removes a dead one and nothing else', async () => {
    await remains.register('app', { claim: 'dead', password: true, id: 'id-app' });
    await remains.register('other', { claim: 'dead', id: 'id-other' });
    const [app] = (await survey()).registrations;
    const claim = (await survey()).claims.get('app')?.line ?? '';
    const order = ['app', claim, app?.content ?? ''].map((text) => `=${octal(text)}`).join(' ');
    const answer = await say([
      `directory ${remains.registry}`,
      `remove ${order} ${app?.registration?.port} no`,
      'forget =id-app any',
    ]);
    expect(answer.slice(1)).toEqual(['removed', 'removed']);
    expect(await remains.files()).toEqual(['.other.claim', 'other.json']);
  });

  it.each([
    ['../app', /^kept its name is no file name/],
    ['.app', /^kept its name is no file name/],
    ['a/b', /^kept its name is no file name/],
    ['', /^kept its name is no file name/],
  ])('removes nothing under the name %j', async (name, reason) => {
    const answer = await say([`directory ${remains.registry}/.credentials`, `remove =${octal(name)} = = 1 no`]);
    expect(answer.at(-1)).toMatch(reason);
  });

  it.each(['../app', '', 'a/b', '.', 'a b'])('forgets nothing under the id %j', async (id) => {
    expect((await say([`directory ${remains.registry}`, `forget =${octal(id)} any`])).at(-1)).toBe('kept it is no id');
  });

  it('ends at a stale lock no more than at a fresh one', async () => {
    await remains.register('app', { claim: 'dead', id: 'id-app' });
    await writeFile(join(remains.registry, '.app.lock'), '');
    const { registrations, claims } = await survey();
    const texts = ['app', claims.get('app')?.line ?? '', registrations[0]?.content ?? ''];
    const order = texts.map((text) => `=${octal(text)}`).join(' ');
    const port = registrations[0]?.registration?.port;
    expect((await say([`directory ${remains.registry}`, `remove ${order} ${port} no`])).at(-1)).toBe('removed');
    expect(await remains.files()).toEqual([]);
  });

  it('says that a read-only directory cannot be written', async (context) => {
    needRoot(context);
    await remains.register('app', { claim: 'dead', id: 'id-app' });
    const { registrations, claims } = await survey();
    run('mount', '--bind', remains.registry, remains.registry);
    try {
      run('mount', '-o', 'remount,bind,ro', remains.registry);
      const texts = ['app', claims.get('app')?.line ?? '', registrations[0]?.content ?? ''];
      const order = texts.map((text) => `=${octal(text)}`).join(' ');
      const answer = await say([`directory ${remains.registry}`, `remove ${order} 1 no`]);
      expect(answer.at(-1)).toBe('kept the registry directory cannot be written');
    } finally {
      run('umount', '-l', remains.registry);
    }
  });
});

describe('a survey of the relay', () => {
  let remains: Remains;
  let sshd: Sshd;
  let session: SurveySession;

  beforeEach(async (context) => {
    needSshd(context);
    remains = await openRemains();
    sshd = await startSshd();
  });
  afterEach(async () => {
    await session?.close();
    await until('every session to end', async () => (await sshd.sessionProcesses()).length === 0);
    await sshd.close();
    await remains[Symbol.asyncDispose]();
  });

  function open(options: Partial<Parameters<typeof openSurveySession>[0]> = {}): SurveySession {
    const clock = new ManualClock();
    session = openSurveySession({
      sshCommand: sshd.command,
      directory: remains.registry,
      clock,
      signal: never,
      ...options,
    });
    return session;
  }

  it('holds for 1,000 registrations', async () => {
    await Promise.all(
      Array.from({ length: 1_000 }, (_, index) => remains.register(`app-${index}`, { port: 20_000 + index })),
    );
    const { registrations, total } = await open().survey();
    expect(total).toBe(1_000);
    expect(new Set(registrations.map(({ registration }) => registration?.port)).size).toBe(1_000);
  });

  it('tells as many as are told, and how many there are', async () => {
    await Promise.all(
      Array.from({ length: 2_010 }, (_, index) => writeFile(join(remains.registry, `app-${index}.json`), '{}')),
    );
    const { registrations, total } = await open().survey();
    expect([registrations.length, total]).toEqual([2_000, 2_010]);
  });

  it('asks nothing, and says what to do', async () => {
    const [ssh = '', ...words] = sshd.command;
    const unknown = words.map((word) =>
      word.startsWith('UserKnownHostsFile=') ? 'UserKnownHostsFile=/dev/null' : word,
    );
    await expect(open({ sshCommand: [ssh, ...unknown] }).survey()).rejects.toThrow(
      /Host key verification failed.*nothing is asked here: load the key into ssh-agent, or log in once by hand/,
    );
  });

  it('asks nothing where a program stands ready to be asked', async () => {
    const asked = join(remains.path, 'asked');
    const askpass = join(remains.path, 'askpass');
    await writeFile(askpass, `#!/bin/sh\n: >'${asked}'\necho yes\n`, { mode: 0o755 });
    vi.stubEnv('SSH_ASKPASS', askpass);
    vi.stubEnv('SSH_ASKPASS_REQUIRE', 'force');
    const words = sshd.command.map((word) =>
      word
        .replace(/^UserKnownHostsFile=.*/, 'UserKnownHostsFile=/dev/null')
        .replace('StrictHostKeyChecking=yes', 'StrictHostKeyChecking=ask'),
    );
    await expect(open({ sshCommand: words }).survey()).rejects.toThrow(/Host key verification failed/);
    // The ssh to a machine on the way gets none of our options.
    const way = `ProxyCommand=${words.join(' ')} -W %h:%p`;
    const [ssh = '', ...rest] = sshd.command;
    await expect(open({ sshCommand: [ssh, '-o', way, ...rest] }).survey()).rejects.toThrow(/verification failed/);
    vi.unstubAllEnvs();
    expect(existsSync(asked)).toBe(false);
  });

  it('tells nothing to a login script that reads', async () => {
    const clock = new ManualClock();
    const script = 'echo noise; read -r line; echo done 0; exec sleep 600';
    const survey = open({ sshCommand: ['sh', '-c', script, 'sh'], clock }).survey();
    const refused = expect(survey).rejects.toThrow('there was no answer within 60 s');
    // However long it is given: nothing comes before the program's own first line.
    await until('the script to run', async () =>
      (await descendantsOf(process.pid)).some(({ command }) => command.includes(script)),
    );
    await clock.advance(60_000);
    await refused;
  });

  it('says what the relay printed where it forces another command', async () => {
    const script = 'echo for git only; exit 3';
    await expect(open({ sshCommand: ['sh', '-c', script, 'sh'] }).survey()).rejects.toThrow(
      'the relay printed "for git only" instead of running our program: ssh ended with status 3; see command=',
    );
  });

  it('says that the relay is not there', async () => {
    await sshd.stop();
    await expect(open().survey()).rejects.toThrow(/Connection refused" \(ssh ended with status 255\)/);
    await expect(open({ sshCommand: ['/nonexistent/ssh'] }).survey()).rejects.toThrow(
      /there is no such program; install it/,
    );
  });

  it('gives up on one that says nothing, and leaves no process', async () => {
    const clock = new ManualClock();
    const asked = open({ sshCommand: ['sh', '-c', 'exec sleep 600', 'sh'], clock }).survey();
    const refused = expect(asked).rejects.toThrow('there was no answer within 60 s');
    await clock.advance(60_000);
    await refused;
  });

  it('gives up when it is told to', async () => {
    const ending = new AbortController();
    const asked = open({ sshCommand: ['sh', '-c', 'exec sleep 600', 'sh'], signal: ending.signal }).survey();
    ending.abort();
    await expect(asked).rejects.toThrow('it was interrupted');
  });

  it('stops listening to one that talks without end', async () => {
    const asked = open({
      sshCommand: ['sh', '-c', 'echo opencode-connected registry 1; yes "port 0050"', 'sh'],
    }).survey();
    await expect(asked).rejects.toThrow('it told more than 16777216 bytes');
  });

  it('passes over what a login script says', async () => {
    await remains.register('app');
    const [ssh = '', ...words] = sshd.command;
    const noisy = ['sh', '-c', 'echo done 1; echo removed; echo error x; exec "$@"', 'sh', ssh, ...words];
    expect((await open({ sshCommand: noisy }).survey()).registrations).toHaveLength(1);
  });
});

/** For `printf %b`. */
function octal(bytes: string): string {
  return bytes.replace(/[^A-Za-z0-9]/g, (character) => `\\0${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

async function pathOf(program: string): Promise<string> {
  return (await execute('sh', ['-c', `command -v ${program} || true`])).stdout.trim();
}

describe('a directory that is none', () => {
  it('is told, however long after the start the first question comes', async () => {
    await using temp = tempDir('no-directory');
    const directory = join(temp.path, 'file');
    await writeFile(directory, '');
    const session = openSurveySession({ directory, clock: systemClock, signal: new AbortController().signal });
    // Long enough for an answer that nobody has asked for.
    for (let turn = 0; turn < 20; turn += 1) await promisify(execFile)('true');
    await expect(session.survey()).rejects.toThrow('is no directory');
    await session.close();
  });
});
