import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { REMOTE_COMMAND } from '../../../src/connected/relay/remote-program.ts';
import { endProcessesIn, processesIn } from '../../rig/processes.ts';
import { signalProcess } from '../../rig/sshd.ts';
import { tempDir, type TempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';

const run = promisify(execFile);

/** What runs the program as `sh`, and the person's login shell, which runs the remote command. */
const SHELLS: ReadonlyArray<readonly [string, string, string]> = [
  ['dash as sh', 'dash', 'dash'],
  ['busybox as everything', 'busybox', 'sh'],
  ['bash as sh', 'bash', 'bash'],
  ['csh as the login shell', 'dash', 'csh'],
  ['fish as the login shell', 'dash', 'fish'],
];

interface Session {
  readonly child: ChildProcess;
  readonly lines: string[];
  send(...lines: readonly string[]): void;
  says(line: string | RegExp): Promise<string>;
}

describe.each(SHELLS)('the program on the relay, with %s', (_, shell, loginShell) => {
  let temp: TempDir;
  let registry: string;
  let path: string;

  beforeEach(async ({ skip }) => {
    for (const program of [shell, loginShell]) {
      const isThere = (await pathOf(program)) !== '';
      const isOptional = program === 'csh' || program === 'fish';
      if (!isThere && !isOptional && process.env['CI'] === 'true')
        throw new Error(`Expected ${program}, because CI=true`);
      skip(!isThere, `needs ${program}`);
    }
    temp = tempDir('remote-program');
    registry = join(temp.path, 'registry');
    const bin = join(temp.path, 'bin');
    await mkdir(bin);
    const program = await pathOf(shell);
    const applets = shell === 'busybox' ? (await run(program, ['--list'])).stdout.split('\n').filter(Boolean) : ['sh'];
    await Promise.all(applets.map((applet) => symlink(program, join(bin, applet))));
    path = shell === 'busybox' ? bin : `${bin}:${process.env['PATH'] ?? ''}`;
  });
  afterEach(async () => {
    if (temp === undefined) return;
    await endProcessesIn(temp.tmp);
    await temp.close();
  });

  function start(...header: readonly string[]): Session {
    return startBy([], ...header);
  }

  function startBy(prefix: readonly string[], ...header: readonly string[]): Session {
    const [program, ...words] = [...prefix, 'env', `PATH=${path}`, loginShell, '-c', REMOTE_COMMAND];
    const child = spawn(program, words, {
      env: { PATH: process.env['PATH'] ?? '', HOME: temp.path, TMPDIR: temp.tmp },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines: string[] = [];
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const whole = (rest + text).split('\n');
      rest = whole.pop() ?? '';
      lines.push(...whole);
    });
    child.stdin.on('error', () => {});
    const session: Session = {
      child,
      lines,
      send: (...sent) => void child.stdin.write(sent.map((line) => `${line}\n`).join('')),
      says: (line) =>
        until(`${line} after ${JSON.stringify(lines)}`, () =>
          lines.find((said) => (typeof line === 'string' ? said === line : line.test(said))),
        ),
    };
    if (header.length > 0) session.send(...header, '');
    return session;
  }

  const header = (id: string, name: string): string[] => [
    `directory ${registry}`,
    `id ${id}`,
    `name ${name}`,
    'password pw',
  ];
  const files = async (): Promise<string[]> => (await readdir(registry)).toSorted();
  const noProcess = (): Promise<unknown> =>
    until('every process to end', async () => (await processesIn(temp.tmp)).length === 0);

  it('registers, answers, and takes back at the end of its input', async () => {
    const session = start(...header('one', 'app'));
    await session.says('claimed app');
    session.send('{"id":"one","port":1}');
    await session.says('registered');
    session.send('');
    await session.says('beat');
    expect(await files()).toEqual(['.app.claim', '.credentials', 'app.json']);
    expect(await readFile(join(registry, '.credentials', 'one'), 'utf8')).toBe('pw\n');
    session.child.stdin?.end();
    await session.says('released');
    await noProcess();
    expect(await files()).toEqual(['.credentials']);
    expect(await readdir(join(registry, '.credentials'))).toEqual([]);
  });

  // A login shell reads the remote command and becomes `sh`: what follows is the same for each of them.
  if (loginShell === 'csh' || loginShell === 'fish') return;

  describe('without /proc, looks with netstat where the tunnel listens', () => {
    const LINES = [
      'tcp4       0      0  127.0.0.1.40001        *.*                    LISTEN',
      'tcp6       0      0  ::1.40001              *.*                    LISTEN',
      'tcp4       0      0  *.40002                *.*                    LISTEN',
      'tcp        0      0 127.0.0.1:40003         0.0.0.0:*               LISTEN',
      'tcp6       0      0 :::40004                :::*                    LISTEN',
      'tcp4       0      0  127.0.0.1.50000        10.0.0.1.40001         ESTABLISHED',
    ];

    it.each([
      [40_001, 'claimed app'],
      [40_002, /^refused .*GatewayPorts yes/],
      [40_003, 'claimed app'],
      [40_004, /^refused .*GatewayPorts yes/],
      [40_005, 'unseen'],
    ])('port %i: %s', async (port, says) => {
      const netstat = join(temp.path, 'bin', 'netstat');
      await rm(netstat, { force: true });
      await writeFile(netstat, `#!/bin/sh\ncat <<'END'\n${LINES.join('\n')}\nEND\n`, { mode: 0o755 });
      const hidden = ['unshare', '--mount', '/bin/sh', '-c', 'mount -t tmpfs none /proc && exec "$@"', 'sh'];
      const session = startBy(hidden, ...header('one', 'app'), `tunnel ${port}`);
      await session.says(says);
      if (typeof says === 'string') await session.says('claimed app');
      else await until('the program to end', () => session.child.exitCode !== null);
      expect(existsSync(registry)).toBe(typeof says === 'string');
    });
  });

  it('takes back when it is told to end', async () => {
    const session = start(...header('one', 'app'));
    await session.says('claimed app');
    session.send('{"id":"one","port":1}');
    await session.says('registered');
    for (const pid of await processesIn(temp.tmp)) signalProcess(pid, 'SIGTERM');
    await noProcess();
    expect(await files()).toEqual(['.credentials']);
  });

  it('takes back when no line comes for so long', async () => {
    const session = start(...header('one', 'app'), 'limit 1');
    await session.says('claimed app');
    session.send('{"id":"one","port":1}');
    await session.says('released');
    await noProcess();
    expect(await files()).toEqual(['.credentials']);
  });

  it('replaces what a dead one left, and lets a living one be', async () => {
    const living = start(...header('one', 'app'));
    await living.says('claimed app');
    const second = start(...header('two', 'app'));
    await second.says('claimed app-2');
    second.send('{"id":"two","port":1}');
    await second.says('registered');
    // All of one session at once: nobody is left to tidy up.
    living.child.stdin?.end();
    second.child.stdin?.end();
    await noProcess();
    await writeFile(
      join(registry, '.app.claim'),
      'dead 1 1 nowhere\n'.replace('nowhere', (await run('uname', ['-n'])).stdout.trim()),
    );
    await writeFile(join(registry, 'app.json'), '{"id":"dead"}');
    const heir = start(...header('three', 'app'));
    await heir.says('claimed app');
    heir.send('{"id":"three","port":1}');
    await heir.says('registered');
    expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"three","port":1}\n');
  });

  it("takes its own name over from its former connection, which does not remove the new one's", async () => {
    const former = start(...header('one', 'app'));
    await former.says('claimed app');
    former.send('{"id":"one","port":1}');
    await former.says('registered');
    // Half-open: it neither hears nor ends. Without sshd nothing else ends its input either.
    const stuck = (await processesIn(temp.tmp)).filter((pid) => pid !== former.child.pid);
    for (const pid of stuck) signalProcess(pid, 'SIGSTOP');
    const next = start(...header('one', 'app'));
    await next.says('claimed app');
    expect(former.child.signalCode).toBe('SIGTERM');
    next.send('{"id":"one","port":2}');
    await next.says('registered');
    former.child.stdin?.end();
    for (const pid of stuck) signalProcess(pid, 'SIGCONT');
    await until('the former to end', async () => (await processesIn(temp.tmp)).length === 5);
    expect(await files()).toEqual(['.app.claim', '.credentials', 'app.json']);
    expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"one","port":2}\n');
    expect(await readdir(join(registry, '.credentials'))).toEqual(['one']);
  });

  it.each([
    ['nobody', undefined],
    ['a dead one', 'dead 1 1'],
  ])('gives each of many that come at once a name of its own where %s had it', async (_, dead) => {
    await mkdir(registry, { mode: 0o700 });
    if (dead !== undefined) {
      const host = (await run('uname', ['-n'])).stdout.trim();
      await writeFile(join(registry, '.app.claim'), `${dead} ${host}\n`);
    }
    const sessions = Array.from({ length: 12 }, () => start());
    await Promise.all(sessions.map((session) => session.says('opencode-connected 1')));
    for (const [index, session] of sessions.entries()) session.send(...header(`id-${index}`, 'app'));
    // All stand before the last line of the header.
    for (const session of sessions) session.send('');
    const claims = await Promise.all(sessions.map((session) => session.says(/^(?:claimed|error) /)));
    const names = ['app', ...Array.from({ length: 11 }, (_, index) => `app-${index + 2}`)];
    expect(new Set(claims)).toEqual(new Set(names.map((name) => `claimed ${name}`)));
  });

  it.each([
    ['id ../x', /^error expected an id of letters/],
    ['id ', /^error expected an id of letters/],
    ['name ../x', /^error expected a name without path parts/],
    ['name .x', /^error expected a name without path parts/],
    ['keep a/b', /^error expected a name without path parts/],
    ['directory relative', /^error expected an absolute registry directory/],
    ['limit 1; touch ran', /^error expected a limit in seconds/],
  ])('refuses %j', async (line, error) => {
    const session = start(...header('one', 'app'), line);
    await session.says(error);
    await noProcess();
    expect(existsSync(registry) ? await files() : []).toEqual([]);
  });

  it('ends without a word when the header does', async () => {
    const session = start();
    session.send(...header('one', 'app'));
    await session.says('opencode-connected 1');
    session.child.stdin?.end();
    await noProcess();
    expect(session.lines).toEqual(['opencode-connected 1']);
    expect(existsSync(registry)).toBe(false);
  });

  it('leaves a registration alone that is no longer its own', async () => {
    await mkdir(registry, { mode: 0o700 });
    const session = start(...header('one', 'app'));
    await session.says('claimed app');
    session.send('{"id":"one","port":1}');
    await session.says('registered');
    await writeFile(join(registry, '.app.claim'), 'two 1 1 elsewhere\n');
    await writeFile(join(registry, 'app.json'), '{"id":"two"}');
    session.send('');
    await session.says(/^error the name app was taken over/);
    await noProcess();
    expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"two"}');
  });
});

/** Empty where there is no such program. */
async function pathOf(program: string): Promise<string> {
  return run('sh', ['-c', `command -v ${program}`]).then(
    ({ stdout }) => stdout.trim(),
    () => '',
  );
}

describe('the words of the remote command', () => {
  it('hold nothing that some login shell would read', () => {
    const quoted = /^exec sh -c '([^']*)'$/.exec(REMOTE_COMMAND)?.[1];
    expect(quoted).toBeDefined();
    expect(quoted).not.toMatch(/[\n!]/);
  });
});
