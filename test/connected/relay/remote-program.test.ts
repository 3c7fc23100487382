import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chown, lchown, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { REMOTE_COMMAND } from '../../../src/connected/relay/remote-program.ts';
import { needRoot } from '../../discovery/as-root.ts';
import { endProcessesIn, processesIn } from '../../rig/processes.ts';
import { signalProcess } from '../../rig/sshd.ts';
import { tempDir, type TempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';

const run = promisify(execFile);

/** The shell that is `sh`, and the person's login shell, which runs the remote command. */
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
      stdio: ['pipe', 'pipe', 'ignore'],
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

  async function registered(name = 'app', ...more: readonly string[]): Promise<Session> {
    const session = start(...header('one', name), ...more);
    await session.says(`claimed ${name}`);
    session.send('{"id":"one","port":1}');
    await session.says('registered');
    return session;
  }
  const modeOf = async (path: string): Promise<string> => ((await stat(join(registry, path))).mode & 0o777).toString(8);

  it('registers for its owner alone, answers, and withdraws everything at the end of its input', async () => {
    const session = await registered();
    session.send('');
    await session.says('beat');
    expect(await files()).toEqual(['.app.claim', '.credentials', 'app.json']);
    expect(await readFile(join(registry, '.credentials', 'one'), 'utf8')).toBe('pw\n');
    expect(await Promise.all(['.', '.credentials', '.credentials/one', 'app.json'].map(modeOf))).toEqual([
      '700',
      '700',
      '600',
      '644',
    ]);
    session.child.stdin?.end();
    await session.says('released');
    await noProcess();
    expect(await files()).toEqual(['.credentials']);
    expect(await readdir(join(registry, '.credentials'))).toEqual([]);
  });

  // A login shell reads the remote command and becomes `sh`, so the rest is the same for each of them.
  if (loginShell === 'csh' || loginShell === 'fish') return;

  describe('without /proc, finds with netstat where the tunnel listens', () => {
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

  it('refuses a tunnel that listens on every address', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
    const session = start(...header('one', 'app'), `tunnel ${(server.address() as AddressInfo).port}`);
    await session.says(/^refused .*GatewayPorts yes/);
    await noProcess();
    expect(existsSync(registry)).toBe(false);
    server.close();
  });

  it('withdraws everything on SIGTERM', async () => {
    await registered();
    for (const pid of await processesIn(temp.tmp)) signalProcess(pid, 'SIGTERM');
    await noProcess();
    expect(await files()).toEqual(['.credentials']);
  });

  it('withdraws everything when no line comes within the limit', async () => {
    const session = await registered('app', 'limit 1');
    await session.says('released');
    await noProcess();
    expect(await files()).toEqual(['.credentials']);
  });

  describe('when one of its processes is killed', () => {
    /** The program's processes in the order in which they start. */
    const PROCESSES = ['the first', 'the reader', 'the guard', 'the timer', "the timer's sleep"] as const;

    async function kill(which: (typeof PROCESSES)[number]): Promise<void> {
      const pids = await until('all five processes', async () => {
        const found = await processesIn(temp.tmp);
        return found.length === PROCESSES.length && found;
      });
      signalProcess(pids.toSorted((one, other) => one - other)[PROCESSES.indexOf(which)]!, 'SIGKILL');
    }

    it.each(['the first', 'the reader'] as const)('%s, withdraws everything', async (which) => {
      const session = await registered();
      await kill(which);
      session.child.stdin?.end();
      await until('the registration to be gone', async () => !(await files()).includes('app.json'));
      await until('the claim to be gone', async () => (await files()).join() === '.credentials');
    });

    it.each(['the guard', 'the timer', "the timer's sleep"] as const)('%s, goes on', async (which) => {
      const session = await registered();
      await kill(which);
      session.send('');
      await session.says('beat');
      expect(await files()).toEqual(['.app.claim', '.credentials', 'app.json']);
      session.child.stdin?.end();
      await session.says('released');
      expect(await files()).toEqual(['.credentials']);
    });
  });

  it('restores with the next heartbeat what a cleaner of temporary files removed', async () => {
    const session = await registered();
    for (const name of ['app.json', '.app.claim', '.credentials/one']) await rm(join(registry, name));
    session.send('');
    await session.says('beat');
    expect(await files()).toEqual(['.app.claim', '.credentials', 'app.json']);
    expect(await readdir(join(registry, '.credentials'))).toEqual(['one']);
    expect(await modeOf('.app.claim')).toBe('600');
  });

  it('replaces a registration without a claim only if nothing listens on its port', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const port = (server.address() as AddressInfo).port;
    await mkdir(registry, { mode: 0o700 });
    await writeFile(join(registry, 'dead.json'), '{"name":"dead","port":9}');
    await writeFile(join(registry, 'alive.json'), JSON.stringify({ name: 'alive', port }));
    await writeFile(join(registry, 'half.json'), '{"name":"ha');
    for (const [name, claimed] of [
      ['dead', 'dead'],
      ['alive', 'alive-2'],
      ['half', 'half-2'],
    ] as const)
      await start(...header(`id-${name}`, name)).says(`claimed ${claimed}`);
    server.close();
  });

  it('reads the home directory as ~', async () => {
    await start(`directory ~/a registry`, 'id one', 'name app').says('claimed app');
    expect(existsSync(join(temp.path, 'a registry', '.app.claim'))).toBe(true);
  });

  describe('with the default registry directory', () => {
    const own = (): string => join(temp.path, '.local/state/opencode-mcp/registry');

    it("takes it while it is free or this user's", async () => {
      for (const name of ['app', 'app-2']) {
        const session = start(...header(name, 'app'), 'default yes');
        await session.says(`claimed ${name}`);
        expect(session.lines.filter((line) => line.startsWith('directory '))).toEqual([]);
      }
    });

    it.for<readonly [string, () => Promise<unknown>]>([
      ["another user's", () => mkdir(registry).then(() => chown(registry, 1000, 1000))],
      ["another user's file", () => writeFile(registry, '').then(() => chown(registry, 1000, 1000))],
      ["another user's link", () => symlink('/nowhere', registry).then(() => lchown(registry, 1000, 1000))],
      ['free, but was not before', () => mkdir(own(), { recursive: true, mode: 0o700 })],
    ])("takes this user's own instead if it is %s", async ([, occupy], context) => {
      needRoot(context);
      await occupy();
      const session = start(...header('one', 'app'), 'default yes');
      await session.says(`directory ${own()}`);
      await session.says('claimed app');
      expect(await readdir(own())).toContain('.app.claim');
    });
  });

  it('replaces the remains of a dead holder, but not a living one', async () => {
    const living = await registered();
    const second = start(...header('two', 'app'));
    await second.says('claimed app-2');
    living.child.stdin?.end();
    second.child.stdin?.end();
    await noProcess();
    await writeFile(join(registry, '.app.claim'), `dead 1 1 ${await hostName()}\n`);
    await writeFile(join(registry, 'app.json'), '{"id":"dead"}');
    await registered();
    expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"one","port":1}\n');
  });

  // It takes three seconds, so it runs in one shell only. 'leaves a registration alone …' below runs in each.
  const inOneShell = it.runIf(shell === 'dash');
  inOneShell(
    "takes its own name over from its previous connection, which does not remove the new one's files",
    async () => {
      const former = await registered();
      // Half-open: it neither reads nor ends. Without sshd nothing else ends its input either.
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
    },
  );

  it.each([
    ['nobody', undefined],
    ['a dead holder', 'dead 1 1'],
  ])('gives twelve that start at once different names if %s had the name', async (_, dead) => {
    await mkdir(registry, { mode: 0o700 });
    if (dead !== undefined) await writeFile(join(registry, '.app.claim'), `${dead} ${await hostName()}\n`);
    const sessions = Array.from({ length: 12 }, () => start());
    await Promise.all(sessions.map((session) => session.says('opencode-connected 1')));
    for (const [index, session] of sessions.entries()) session.send(...header(`id-${index}`, 'app'));
    // All wait for the last line of the header.
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

  it('ends silently if its input ends within the header', async () => {
    const session = start();
    session.send(...header('one', 'app'));
    await session.says('opencode-connected 1');
    session.child.stdin?.end();
    await noProcess();
    expect(session.lines).toEqual(['opencode-connected 1']);
    expect(existsSync(registry)).toBe(false);
  });

  it('leaves a registration alone that another instance has taken over', async () => {
    const session = await registered();
    await writeFile(join(registry, '.app.claim'), 'two 1 1 elsewhere\n');
    await writeFile(join(registry, 'app.json'), '{"id":"two"}');
    session.send('');
    await session.says(/^error the name app was taken over/);
    await noProcess();
    expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"two"}');
  });
});

async function hostName(): Promise<string> {
  return (await run('uname', ['-n'])).stdout.trim();
}

/** Empty if there is no such program. */
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
