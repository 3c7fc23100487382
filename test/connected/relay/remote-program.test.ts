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
  /** A folder of its own on the PATH. */
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
      const isThere = (await pathOf(program)) !== '';
      const isOptional = program === 'csh' || program === 'fish';
      if (!isThere && !isOptional && process.env['CI'] === 'true')
        throw new Error(`Expected ${program}, because CI=true`);
      skip(!isThere, `needs ${program}`);
    }
    temp = tempDir('remote-program');
    registry = join(temp.path, 'registry');
    onTestFinished(async () => {
      await endProcessesIn(temp.tmp);
      await temp.close();
    });
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

  const header = (id: string, name: string, directory = registry): string[] => [
    `directory ${directory}`,
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

  it('without /proc, finds with netstat where the tunnel listens', async () => {
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
    const hidden = ['unshare', '--mount', '/bin/sh', '-c', 'mount -t tmpfs none /proc && exec "$@"', 'sh'];
    for (const [port, ...answers] of [
      [40_002, /^refused .*GatewayPorts yes/],
      [40_004, /^refused .*GatewayPorts yes/],
      [40_001, 'claimed app'],
      [40_003, 'claimed app-2'],
      [40_005, 'unseen', 'claimed app-3'],
    ] as const) {
      const session = startBy(hidden, ...header(String(port), 'app'), `tunnel ${port}`);
      for (const answer of answers) await session.says(answer);
      expect(existsSync(registry)).toBe(port !== 40_002 && port !== 40_004);
    }
  });

  it('refuses a tunnel that listens on every address', async () => {
    const port = await listen('0.0.0.0');
    await start(...header('one', 'app'), `tunnel ${port}`).says(/^refused .*GatewayPorts yes/);
    await noProcess();
    expect(existsSync(registry)).toBe(false);
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

  it('restores with the next heartbeat the files that a cleaner of temporary files removed', async () => {
    const session = await registered();
    for (const name of ['app.json', '.app.claim', '.credentials/one']) await rm(join(registry, name));
    session.send('');
    await session.says('beat');
    expect(await files()).toEqual(['.app.claim', '.credentials', 'app.json']);
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
      await start(...header(`id-${name}`, name)).says(`claimed ${claimed}`);
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

    it("takes this user's own directory if the default one is another user's, and always from then on", async (context) => {
      needRoot(context);
      const at = (name: string): string => join(temp.path, name);
      await mkdir(at('folder'));
      await writeFile(at('file'), '');
      await symlink('/nowhere', at('link'));
      for (const name of ['folder', 'file', 'link', 'free']) {
        if (name !== 'free') {
          await lchown(at(name), 1000, 1000);
          await rm(own(), { recursive: true, force: true });
        }
        const session = start(...header(name, name, at(name)), 'default yes');
        await session.says(`directory ${own()}`);
        await session.says(`claimed ${name}`);
        expect(await readdir(own())).toContain(`.${name}.claim`);
      }
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

  it('gives twelve that start at once different names, and one of them that of a dead holder', async () => {
    await mkdir(registry, { mode: 0o700 });
    await writeFile(join(registry, '.app.claim'), `dead 1 1 ${await hostName()}\n`);
    const sessions = Array.from({ length: 12 }, () => start());
    await Promise.all(sessions.map((session) => session.says('opencode-connected 1')));
    for (const [index, session] of sessions.entries()) session.send(...header(`id-${index}`, 'app'));
    // All wait for the last line of the header.
    for (const session of sessions) session.send('');
    const claims = await Promise.all(sessions.map((session) => session.says(/^(?:claimed|error) /)));
    const names = ['app', ...Array.from({ length: 11 }, (_, index) => `app-${index + 2}`)];
    expect(new Set(claims)).toEqual(new Set(names.map((name) => `claimed ${name}`)));
  });

  it('refuses a header with which it would leave the registry directory, or run something', async () => {
    const refusals = [
      ['id ../x', /^error expected an id of letters/],
      ['id ', /^error expected an id of letters/],
      ['name ../x', /^error expected a name without path parts/],
      ['name .x', /^error expected a name without path parts/],
      ['keep a/b', /^error expected a name without path parts/],
      ['directory relative', /^error expected an absolute registry directory/],
      ['limit 1; touch ran', /^error expected a limit in seconds/],
    ] as const;
    await Promise.all(refusals.map(([line, error]) => start(...header('one', 'app'), line).says(error)));
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

async function listen(host: string): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

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
