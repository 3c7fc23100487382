import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';

import { type ConnectedChild, filesIn, startConnected } from '../../rig/connected-child.ts';
import { type FakeOpencode2, startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { NO_MULTICAST } from '../../rig/no-multicast.ts';
import { tempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';

const closers: Array<() => Promise<unknown>> = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

interface Stage {
  readonly fake: FakeOpencode2;
  readonly stateDir: string;
  /** How the program was called, oldest first; but for `--version`, with its working directory and one of its variables. */
  calls(): Promise<readonly string[]>;
  start(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<ConnectedChild>;
}

/** A person's machine with OpenCode 2.1: a service that answers, and a program that notes how it is called. */
async function openStage({ version = '2.1.2', says = '' } = {}): Promise<Stage> {
  const temp = tempDir('start-service');
  closers.push(() => temp.close());
  const home = join(temp.path, 'home');
  const stateDir = join(home, '.local', 'state', 'opencode');
  await mkdir(stateDir, { recursive: true });
  const fake = await startFakeOpencode2({ home });
  closers.push(() => fake.close());
  const opencode = join(temp.path, 'opencode');
  const log = join(temp.path, 'calls');
  await writeFile(
    opencode,
    `#!/bin/sh
if [ "$*" = --version ]; then echo "opencode v${version}"; exit; fi
printf '%s|' "$@" "$PWD" "$OPENCODE_SERVER_USERNAME" >>'${log}'
echo >>'${log}'
${says}
`,
  );
  await chmod(opencode, 0o755);
  return {
    fake,
    stateDir,
    async calls() {
      const text = await readFile(log, 'utf8').catch(() => '');
      return text.split('\n').filter((line) => line !== '');
    },
    async start(args, env = {}) {
      const child = await startConnected({
        args,
        inTerminal: !args.includes('--headless'),
        home,
        opencode,
        registry: join(home, 'registry'),
        env: { ...NO_MULTICAST, XDG_STATE_HOME: join(home, '.local', 'state'), ...env },
      });
      closers.push(() => child.close());
      return child;
    },
  };
}

describe('opencode-connected with OpenCode 2.1', () => {
  test("the terminal gets the person's arguments and environment, and its exit code is returned", async () => {
    const stage = await openStage({ says: 'exit 7' });
    await stage.fake.register(stage.stateDir);
    const child = await stage.start(['--', '-c', '--prompt', 'two  words'], { OPENCODE_SERVER_USERNAME: 'of theirs' });
    expect(await child.exited).toEqual({ code: 7, signal: null });
    expect(await stage.calls()).toEqual([`-c|--prompt|two  words|${child.directory}|of theirs|`]);
    expect(await filesIn(child.registry)).toEqual([]);
  });

  test('a terminal of another version is not started, since it would replace the service', async () => {
    const stage = await openStage({ version: '2.3.2' });
    await stage.fake.register(stage.stateDir);
    const child = await stage.start([]);
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain(`the running service is OpenCode ${stage.fake.version} (pid ${process.pid})`);
    expect(child.output()).toContain('run opencode service restart, or use --headless');
    // It held on to nothing meanwhile.
    const headless = await stage.start(['--headless']);
    expect(await headless.registered()).toMatchObject({ port: stage.fake.port });
    expect(await stage.calls()).toEqual([]);
  });

  test('the program starts its service once if none runs', async () => {
    const stage = await openStage();
    const child = await stage.start(['--headless']);
    await until('the start', async () => (await stage.calls()).length > 0);
    await stage.fake.register(stage.stateDir);
    await child.registered();
    expect(await stage.calls()).toEqual([`service|start|${child.directory}||`]);
  });

  test('an interrupt while the service starts ends it without an error', async () => {
    const stage = await openStage();
    const child = await stage.start(['--headless']);
    await until('the start', async () => (await stage.calls()).length > 0);
    child.kill('SIGTERM');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGTERM' });
    expect(child.output()).not.toContain('does not answer');
  });

  test('a failed start is reported in the words of the program', async () => {
    const stage = await openStage({ says: 'echo "no room on the disk" >&2; exit 1' });
    const child = await stage.start(['--headless']);
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain('service start did not start the service; it says "no room on the disk"');
  });

  test('a service file that others can read is not used, and no other service is started', async () => {
    const stage = await openStage();
    await chmod(await stage.fake.register(stage.stateDir), 0o644);
    const child = await stage.start(['--headless']);
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain('other users have access');
    expect(stage.fake.requests).toEqual([]);
    expect(await stage.calls()).toEqual([]);
  });

  test('a password that the service refuses is reported, and no other service is started', async () => {
    const stage = await openStage();
    const path = await stage.fake.register(stage.stateDir);
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), password: 'of before' }));
    const child = await stage.start(['--headless']);
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain('refused the password');
    expect(await stage.calls()).toEqual([]);
  });

  test.each([
    [['--', '--standalone'], 'two turns could run in one session'],
    [['--no-password'], 'always has a password'],
    [['--headless', '--', '-c'], 'passes nothing on'],
  ])('%j is refused before any request', async (args, message) => {
    const stage = await openStage();
    await stage.fake.register(stage.stateDir);
    const child = await stage.start(args);
    expect(await child.exited).toEqual({ code: 2, signal: null });
    expect(child.output()).toContain(message);
    expect(stage.fake.requests).toEqual([]);
    expect(await stage.calls()).toEqual([]);
  });

  test('the program finds the service of its own channel', async () => {
    const stage = await openStage();
    await stage.fake.register(stage.stateDir, 'beta');
    const child = await stage.start(['--headless']);
    // The other channel's is no service of this program's.
    await until('the start', async () => (await stage.calls()).length > 0);
    await stage.fake.register(stage.stateDir);
    await child.registered();
    expect(stage.fake.requests.length).toBeGreaterThan(0);
  });
});
