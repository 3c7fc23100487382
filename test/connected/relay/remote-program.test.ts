import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { lchown, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';

import { REMOTE_COMMAND } from '../../../src/connected/relay/remote-program.ts';
import { needRoot } from '../../discovery/as-root.ts';
import { endProcessesIn, processesIn } from '../../rig/processes.ts';
import { signalProcess } from '../../rig/network/sshd.ts';
import { tempDir, type TempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';

const run = promisify(execFile);

/** Title, the shell that `sh` is, and the user's login shell, which runs the remote command. */
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
  waitForLine(line: string | RegExp): Promise<string>;
}

describe.each(SHELLS)('the program on the relay, with %s', (_, shell, loginShell) => {
  let temp: TempDir;
  let registry: string;
  /** Holds `sh`; first on the PATH. */
  let bin: string;
  let path: string;
  let programs: TempDir;

  beforeAll(async () => {
    programs = tempDir('remote-program-bin');
    bin = programs.path;
    const program = await pathOf(shell);
    if (program === '') return;
    const applets = shell === 'busybox' ? (await run(program, ['--list'])).stdout.split('\n').filter(Boolean) : ['sh'];
    await Promise.all(applets.map((applet) => symlink(program, join(bin, applet))));
    path = shell === 'busybox' ? bin : `${bin}:${process.env['PATH'] ?? ''}`;
  });
  afterAll(() => programs.close());
  beforeEach(async ({ skip }) => {
    for (const program of [shell, loginShell]) {
      const isInstalled = (await pathOf(program)) !== '';
      const isOptional = program === 'csh' || program === 'fish';
      if (!isInstalled && !isOptional && process.env['CI'] === 'true')
        throw new Error(`Expected ${program}, because CI=true`);
      skip(!isInstalled, `needs ${program}`);
    }
    temp = tempDir('remote-program');
    registry = join(temp.path, 'registry');
    onTestFinished(async () => {
      await endProcessesIn(temp.tmp);
      await temp.close();
    });
  });

  function start(...header: readonly string[]): Session {
    return startWithPrefix([], ...header);
  }

  function startWithPrefix(prefix: readonly string[], ...header: readonly string[]): Session {
    const [program, ...words] = [...prefix, 'env', `PATH=${path}`, loginShell, '-c', REMOTE_COMMAND];
    const child = spawn(program, words, {
      env: { PATH: process.env['PATH'] ?? '', HOME: temp.path, TMPDIR: temp.tmp },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const lines: string[] = [];
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const completeLines = (rest + text).split('\n');
      rest = completeLines.pop() ?? '';
      lines.push(...completeLines);
    });
    child.stdin.on('error', () => {});
    const session: Session = {
      child,
      lines,
      send: (...input) => void child.stdin.write(input.map((line) => `${line}\n`).join('')),
      waitForLine: (line) =>
        until(`${line} after ${JSON.stringify(lines)}`, () =>
          lines.find((output) => (typeof line === 'string' ? output === line : line.test(output))),
        ),
    };
    if (header.length > 0) session.send(...header, '');
    return session;
  }

  const header = (id: string, name: string, directory = registry): string[] => [
    `directory ${directory}`,
    `id ${id}`,
    `name ${name}`,
    'password pw',
  ];
  const registryFiles = async (): Promise<string[]> => (await readdir(registry)).toSorted();
  const waitForAllToEnd = (): Promise<unknown> =>
    until('every process to end', async () => (await processesIn(temp.tmp)).length === 0);

  async function startRegistered(name = 'app', ...more: readonly string[]): Promise<Session> {
    const session = start(...header('one', name), ...more);
    await session.waitForLine(`claimed ${name}`);
    session.send('{"id":"one","port":1}');
    await session.waitForLine('registered');
    return session;
  }
  const modeOf = async (path: string): Promise<string> => ((await stat(join(registry, path))).mode & 0o777).toString(8);

  it('registers with files that only their owner can access, answers heartbeats, and removes its files when its input ends', async () => {
    const session = await startRegistered();
    session.send('');
    await session.waitForLine('beat');
    expect(await registryFiles()).toEqual(['.app.claim', '.credentials', 'app.json']);
    expect(await readFile(join(registry, '.credentials', 'one'), 'utf8')).toBe('pw\n');
    expect(await Promise.all(['.', '.credentials', '.credentials/one', 'app.json'].map(modeOf))).toEqual([
      '700',
      '700',
      '600',
      '644',
    ]);
    session.child.stdin?.end();
    await session.waitForLine('released');
    await waitForAllToEnd();
    expect(await registryFiles()).toEqual(['.credentials']);
    expect(await readdir(join(registry, '.credentials'))).toEqual([]);
  });

  // A login shell reads the remote command and becomes `sh`, so the rest is the same for each of them.
  if (loginShell === 'csh' || loginShell === 'fish') return;

  it('reads from netstat where the tunnel listens if there is no /proc', async () => {
    const lines = [
      'tcp4       0      0  127.0.0.1.40001        *.*                    LISTEN',
      'tcp6       0      0  ::1.40001              *.*                    LISTEN',
      'tcp4       0      0  *.40002                *.*                    LISTEN',
      'tcp        0      0 127.0.0.1:40003         0.0.0.0:*               LISTEN',
      'tcp6       0      0 :::40004                :::*                    LISTEN',
      'tcp4       0      0  127.0.0.1.50000        10.0.0.1.40001         ESTABLISHED',
    ];
    const netstat = join(bin, 'netstat');
    await rm(netstat, { force: true });
    await writeFile(netstat, `#!/bin/sh\ncat <<'END'\n${lines.join('\n')}\nEND\n`, { mode: 0o755 });
    const withoutProc = ['unshare', '--mount', '/bin/sh', '-c', 'mount -t tmpfs none /proc && exec "$@"', 'sh'];
    for (const [port, ...answers] of [
      [40_002, /^refused .*GatewayPorts yes/],
      [40_004, /^refused .*GatewayPorts yes/],
      [40_001, 'claimed app'],
      [40_003, 'claimed app-2'],
      [40_005, 'unseen', 'claimed app-3'],
    ] as const) {
      const session = startWithPrefix(withoutProc, ...header(String(port), 'app'), `tunnel ${port}`);
      for (const answer of answers) await session.waitForLine(answer);
      expect(existsSync(registry)).toBe(port !== 40_002 && port !== 40_004);
    }
  });

  it('refuses a tunnel that listens on every address', async () => {
    const port = await listen('0.0.0.0');
    await start(...header('one', 'app'), `tunnel ${port}`).waitForLine(/^refused .*GatewayPorts yes/);
    await waitForAllToEnd();
    expect(existsSync(registry)).toBe(false);
  });

  it('removes its files on SIGTERM', async () => {
    await startRegistered();
    for (const pid of await processesIn(temp.tmp)) signalProcess(pid, 'SIGTERM');
    await waitForAllToEnd();
    expect(await registryFiles()).toEqual(['.credentials']);
  });

  it('removes its files when it gets no line within the limit', async () => {
    const session = await startRegistered('app', 'limit 1');
    await session.waitForLine('released');
    await waitForAllToEnd();
    expect(await registryFiles()).toEqual(['.credentials']);
  });

  describe('when a process of the program is killed', () => {
    /** The program's processes in the order in which they start. */
    const PROCESSES = ['the first', 'the reader', 'the guard', 'the timer', "the timer's sleep"] as const;

    async function kill(processName: (typeof PROCESSES)[number]): Promise<void> {
      const pids = await until('all five processes', async () => {
        const found = await processesIn(temp.tmp);
        return found.length === PROCESSES.length && found;
      });
      signalProcess(pids.toSorted((one, other) => one - other)[PROCESSES.indexOf(processName)]!, 'SIGKILL');
    }

    it.each(['the first', 'the reader'] as const)('killing %s removes the registration', async (processName) => {
      const session = await startRegistered();
      await kill(processName);
      session.child.stdin?.end();
      await until('the registration to be gone', async () => !(await registryFiles()).includes('app.json'));
      await until('the claim to be gone', async () => (await registryFiles()).join() === '.credentials');
    });

    it.each(['the guard', 'the timer', "the timer's sleep"] as const)(
      'killing %s keeps the registration, and heartbeats are answered',
      async (processName) => {
        const session = await startRegistered();
        await kill(processName);
        session.send('');
        await session.waitForLine('beat');
        expect(await registryFiles()).toEqual(['.app.claim', '.credentials', 'app.json']);
        session.child.stdin?.end();
        await session.waitForLine('released');
        expect(await registryFiles()).toEqual(['.credentials']);
      },
    );
  });

  it('restores, at the next heartbeat, files that another program removed', async () => {
    const session = await startRegistered();
    for (const name of ['app.json', '.app.claim', '.credentials/one']) await rm(join(registry, name));
    session.send('');
    await session.waitForLine('beat');
    expect(await registryFiles()).toEqual(['.app.claim', '.credentials', 'app.json']);
    expect(await readdir(join(registry, '.credentials'))).toEqual(['one']);
    expect(await modeOf('.app.claim')).toBe('600');
  });

  it('replaces a registration without a claim only if nothing listens on its port', async () => {
    const port = await listen('127.0.0.1');
    await mkdir(registry, { mode: 0o700 });
    await writeFile(join(registry, 'dead.json'), '{"name":"dead","port":9}');
    await writeFile(join(registry, 'alive.json'), JSON.stringify({ name: 'alive', port }));
    await writeFile(join(registry, 'half.json'), '{"name":"ha');
    for (const [name, claimed] of [
      ['dead', 'dead'],
      ['alive', 'alive-2'],
      ['half', 'half-2'],
    ] as const)
      await start(...header(`id-${name}`, name)).waitForLine(`claimed ${claimed}`);
  });

  it('expands ~ to the home directory', async () => {
    await start(`directory ~/a registry`, 'id one', 'name app').waitForLine('claimed app');
    expect(existsSync(join(temp.path, 'a registry', '.app.claim'))).toBe(true);
  });

  describe('with the default registry directory', () => {
    const ownDirectory = (): string => join(temp.path, '.local/state/opencode-mcp/registry');

    it('uses it if it does not exist or belongs to this user', async () => {
      for (const name of ['app', 'app-2']) {
        const session = start(...header(name, 'app'), 'default yes');
        await session.waitForLine(`claimed ${name}`);
        expect(session.lines.filter((line) => line.startsWith('directory '))).toEqual([]);
      }
    });

    it("uses this user's own directory if another user owns the default one, and keeps using it", async (context) => {
      needRoot(context);
      const at = (name: string): string => join(temp.path, name);
      await mkdir(at('folder'));
      await writeFile(at('file'), '');
      await symlink('/nowhere', at('link'));
      for (const name of ['folder', 'file', 'link', 'free']) {
        if (name !== 'free') {
          await lchown(at(name), 1000, 1000);
          await rm(ownDirectory(), { recursive: true, force: true });
        }
        const session = start(...header(name, name, at(name)), 'default yes');
        await session.waitForLine(`directory ${ownDirectory()}`);
        await session.waitForLine(`claimed ${name}`);
        expect(await readdir(ownDirectory())).toContain(`.${name}.claim`);
      }
    });
  });

  it('replaces the files of a dead instance, but not those of a running one', async () => {
    const living = await startRegistered();
    const second = start(...header('two', 'app'));
    await second.waitForLine('claimed app-2');
    living.child.stdin?.end();
    second.child.stdin?.end();
    await waitForAllToEnd();
    await writeFile(join(registry, '.app.claim'), `dead 1 1 ${await hostName()}\n`);
    await writeFile(join(registry, 'app.json'), '{"id":"dead"}');
    await startRegistered();
    expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"one","port":1}\n');
  });

  // This test takes three seconds, so it runs in one shell only. 'keeps a registration …' below runs in each.
  const inOneShell = it.runIf(shell === 'dash');
  inOneShell(
    "takes over its name from its previous connection, which then leaves the new connection's files",
    async () => {
      const previous = await startRegistered();
      // A half-open connection: it neither reads nor ends, and without sshd nothing closes its input.
      const stuck = (await processesIn(temp.tmp)).filter((pid) => pid !== previous.child.pid);
      for (const pid of stuck) signalProcess(pid, 'SIGSTOP');
      const next = start(...header('one', 'app'));
      await next.waitForLine('claimed app');
      expect(previous.child.signalCode).toBe('SIGTERM');
      next.send('{"id":"one","port":2}');
      await next.waitForLine('registered');
      previous.child.stdin?.end();
      for (const pid of stuck) signalProcess(pid, 'SIGCONT');
      await until('the previous connection to end', async () => (await processesIn(temp.tmp)).length === 5);
      expect(await registryFiles()).toEqual(['.app.claim', '.credentials', 'app.json']);
      expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"one","port":2}\n');
      expect(await readdir(join(registry, '.credentials'))).toEqual(['one']);
    },
  );

  it("gives different names to twelve programs that start at once, and a dead instance's name to one of them", async () => {
    await mkdir(registry, { mode: 0o700 });
    await writeFile(join(registry, '.app.claim'), `dead 1 1 ${await hostName()}\n`);
    const sessions = Array.from({ length: 12 }, () => start());
    await Promise.all(sessions.map((session) => session.waitForLine('opencode-connected 1')));
    for (const [index, session] of sessions.entries()) session.send(...header(`id-${index}`, 'app'));
    // All of them wait for the last line of the header.
    for (const session of sessions) session.send('');
    const claims = await Promise.all(sessions.map((session) => session.waitForLine(/^(?:claimed|error) /)));
    const names = ['app', ...Array.from({ length: 11 }, (_, index) => `app-${index + 2}`)];
    expect(new Set(claims)).toEqual(new Set(names.map((name) => `claimed ${name}`)));
  });

  it('refuses a header that would leave the registry directory or run a command', async () => {
    const refusals = [
      ['id ../x', /^error expected an id of letters/],
      ['id ', /^error expected an id of letters/],
      ['name ../x', /^error expected a name without path parts/],
      ['name .x', /^error expected a name without path parts/],
      ['keep a/b', /^error expected a name without path parts/],
      ['directory relative', /^error expected an absolute registry directory/],
      ['limit 1; touch ran', /^error expected a limit in seconds/],
    ] as const;
    await Promise.all(refusals.map(([line, error]) => start(...header('one', 'app'), line).waitForLine(error)));
    await waitForAllToEnd();
    expect(existsSync(registry) ? await registryFiles() : []).toEqual([]);
  });

  it('ends without output if its input ends within the header', async () => {
    const session = start();
    session.send(...header('one', 'app'));
    await session.waitForLine('opencode-connected 1');
    session.child.stdin?.end();
    await waitForAllToEnd();
    expect(session.lines).toEqual(['opencode-connected 1']);
    expect(existsSync(registry)).toBe(false);
  });

  it('keeps a registration that another instance has taken over', async () => {
    const session = await startRegistered();
    await writeFile(join(registry, '.app.claim'), 'two 1 1 elsewhere\n');
    await writeFile(join(registry, 'app.json'), '{"id":"two"}');
    session.send('');
    await session.waitForLine(/^error the name app was taken over/);
    await waitForAllToEnd();
    expect(await readFile(join(registry, 'app.json'), 'utf8')).toBe('{"id":"two"}');
  });
});

async function listen(host: string): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function hostName(): Promise<string> {
  return (await run('uname', ['-n'])).stdout.trim();
}

/** Empty if the program is not installed. */
async function pathOf(program: string): Promise<string> {
  return run('sh', ['-c', `command -v ${program}`]).then(
    ({ stdout }) => stdout.trim(),
    () => '',
  );
}

describe('the remote command', () => {
  it('is a single quoted word without characters that a login shell expands', () => {
    const quoted = /^exec sh -c '([^']*)'$/.exec(REMOTE_COMMAND)?.[1];
    expect(quoted).toBeDefined();
    expect(quoted).not.toMatch(/[\n!]/);
  });
});
