import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';

import { type ConnectedChild, filesIn } from '../../rig/programs/connected-child.ts';
import { type FakeOpencode2, startFakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { NO_MULTICAST } from '../../rig/no-multicast.ts';
import { until } from '../../rig/wait.ts';
import { atEnd, endAll, folder, startWrapper } from '../wrapper-stage.ts';

afterEach(endAll);

interface Stage {
  readonly fake: FakeOpencode2;
  /** The home of the user who starts the service. */
  readonly home: string;
  readonly stateDir: string;
  /** The program's calls except `--version`, oldest first, each with its working directory and one of its variables. */
  calls(): Promise<readonly string[]>;
  start(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<ConnectedChild>;
}

/** A user's machine with OpenCode 2.1: a service that answers, and a program that records its calls. */
async function openStage({ version = '2.1.2', script = '' } = {}): Promise<Stage> {
  const temp = folder();
  const home = join(temp.path, 'home');
  const stateDir = join(home, '.local', 'state', 'opencode');
  await mkdir(stateDir, { recursive: true });
  const fake = await startFakeOpencode2({ home });
  atEnd(() => fake.close());
  const opencode = join(temp.path, 'opencode');
  const log = join(temp.path, 'calls');
  await writeFile(
    opencode,
    `#!/bin/sh
if [ "$*" = --version ]; then echo "opencode v${version}"; exit; fi
printf '%s|' "$@" "$PWD" "$OPENCODE_SERVER_USERNAME" >>'${log}'
echo >>'${log}'
${script}
`,
  );
  await chmod(opencode, 0o755);
  return {
    fake,
    home,
    stateDir,
    async calls() {
      const text = await readFile(log, 'utf8').catch(() => '');
      return text.split('\n').filter((line) => line !== '');
    },
    start: (args, env = {}) =>
      startWrapper({
        args,
        inTerminal: !args.includes('--headless'),
        home,
        opencode,
        registry: join(home, 'registry'),
        env: { ...NO_MULTICAST, XDG_STATE_HOME: join(home, '.local', 'state'), ...env },
      }),
  };
}

describe('opencode-connected with OpenCode 2.1', () => {
  test("the terminal gets the user's arguments and environment, and its exit code is returned", async () => {
    const stage = await openStage({ script: 'exit 7' });
    await stage.fake.register(stage.stateDir);
    const child = await stage.start(['--', '-c', '--prompt', 'two  words'], { OPENCODE_SERVER_USERNAME: 'kept' });
    expect(await child.exited).toEqual({ code: 7, signal: null });
    expect(await stage.calls()).toEqual([`-c|--prompt|two  words|${child.directory}|kept|`]);
    expect(await filesIn(child.registry)).toEqual([]);
  });

  test('a terminal of another version is not started, since it would replace the service', async () => {
    const stage = await openStage({ version: '2.3.2' });
    await stage.fake.register(stage.stateDir);
    const child = await stage.start([]);
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain(`the running service is OpenCode ${stage.fake.version} (pid ${process.pid})`);
    expect(child.output()).toContain('run opencode service restart, or use --headless');
    // The first wrapper has released the service.
    const headless = await stage.start(['--headless']);
    expect(await headless.registered()).toMatchObject({ port: stage.fake.port });
    expect(await stage.calls()).toEqual([]);
  });

  test('the program starts its service once if no service of its channel runs', async () => {
    const stage = await openStage();
    await stage.fake.register(stage.stateDir, 'beta');
    const child = await stage.start(['--headless']);
    await until('the start', async () => (await stage.calls()).length > 0);
    expect(stage.fake.requests).toEqual([]);
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

  test('a failed start is reported with the message of the program', async () => {
    const stage = await openStage({ script: 'echo "no room on the disk" >&2; exit 1' });
    const child = await stage.start(['--headless']);
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain('service start did not start the service; it says "no room on the disk"');
  });

  test.each<readonly [string, (path: string) => Promise<unknown>, string, boolean]>([
    ['a service file that others can read', (path) => chmod(path, 0o644), 'other users have access', false],
    [
      'a password that the service refuses',
      async (path) => {
        const file: object = JSON.parse(await readFile(path, 'utf8'));
        await writeFile(path, JSON.stringify({ ...file, password: 'old' }));
      },
      'refused the password',
      true,
    ],
  ])('%s is reported, and no other service is started', async (_, change, message, isAsked) => {
    const stage = await openStage();
    await change(await stage.fake.register(stage.stateDir));
    const child = await stage.start(['--headless']);
    expect(await child.exited).toEqual({ code: 1, signal: null });
    expect(child.output()).toContain(message);
    // The service is not asked again.
    expect(child.output()).not.toContain('does not answer');
    expect(stage.fake.requests.length > 0).toBe(isAsked);
    expect(await stage.calls()).toEqual([]);
  });

  test('an argument that conflicts with the service is refused before any request', async () => {
    const stage = await openStage();
    await stage.fake.register(stage.stateDir);
    const child = await stage.start(['--', '--standalone']);
    expect(await child.exited).toEqual({ code: 2, signal: null });
    expect(child.output()).toContain('two turns could run in one session');
    expect(stage.fake.requests).toEqual([]);
    expect(await stage.calls()).toEqual([]);
  });

  test('a second wrapper waits, and takes the registration over when the first is killed', async () => {
    const stage = await openStage();
    await stage.fake.register(stage.stateDir);
    const first = await stage.start(['--headless']);
    const { id } = await first.registered();
    const second = await stage.start(['--headless']);
    await until('the second to wait', () => second.output().includes(`(pid ${first.pid})`));
    expect((await filesIn(first.registry)).filter((path) => path.endsWith('.json'))).toHaveLength(1);
    first.kill('SIGKILL');
    const taken = await second.registered();
    expect(taken.id).not.toBe(id);
    expect(taken.name).toMatch(/:service$/);
  });

  test('a service that restarts on another port is registered there', async () => {
    const stage = await openStage();
    await stage.fake.register(stage.stateDir);
    const child = await stage.start(['--headless']);
    const { id } = await child.registered();
    await stage.fake.kill9();
    await using again = await startFakeOpencode2({ home: stage.home });
    await again.register(stage.stateDir);
    const { port } = again;
    expect(port).not.toBe(stage.fake.port);
    expect(
      await until('the registration to follow', async () => {
        const registered = await child.registered();
        return registered.port === port ? registered : undefined;
      }),
    ).toMatchObject({ id });
  });
});
