import { execFile } from 'node:child_process';
import { cp, mkdir, readdir } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';

import { tempDir } from '../temp.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../../..');

/** A machine with nothing installed. */
export interface FreshMachine extends AsyncDisposable {
  /** A folder for its other files. */
  readonly path: string;
  /** TMPDIR for child processes. */
  readonly tmp: string;
  /** A repository of this checkout's files, to clone. */
  readonly checkout: string;
  /** npm's empty prefix. */
  readonly prefix: string;
  /** An empty home directory. */
  readonly home: string;
  /** npm's registry and cache of this machine, without its other settings. */
  readonly env: Readonly<Record<string, string>>;
  npm(directory: string, ...args: readonly string[]): Promise<string>;
  /** Runs an installed command outside any node_modules. */
  run(command: string, ...args: readonly string[]): Promise<string>;
  /** Files and links below the prefix. */
  left(): Promise<readonly string[]>;
}

export async function openFreshMachine(): Promise<FreshMachine> {
  const temp = tempDir('fresh-machine');
  const checkout = join(temp.path, 'checkout');
  const prefix = join(temp.path, 'prefix');
  const home = join(temp.path, 'home');
  await Promise.all([prefix, home].map((path) => mkdir(path)));
  await fillCheckout(checkout);
  const env = await npmEnvironment(home, prefix);
  return {
    path: temp.path,
    tmp: temp.tmp,
    checkout,
    prefix,
    home,
    env,
    async npm(directory, ...args) {
      const { stdout, stderr } = await run('npm', args, { cwd: directory, env, maxBuffer: 2 ** 24 });
      return stdout + stderr;
    },
    run: async (command, ...args) =>
      (await run(join(prefix, 'bin', command), args, { env: { PATH: dirname(process.execPath), HOME: home } })).stdout,
    async left() {
      const entries = await readdir(prefix, { recursive: true, withFileTypes: true });
      return entries
        .filter((entry) => !entry.isDirectory())
        .map(({ parentPath, name }) => relative(prefix, join(parentPath, name)));
    },
    [Symbol.asyncDispose]: () => temp.close(),
  };
}

/** Copies the files, with uncommitted changes and without the tests, which the build does not read. */
async function fillCheckout(checkout: string): Promise<void> {
  const list = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const { stdout } = await run('git', list, { cwd: root });
  const files = stdout
    .split('\0')
    .filter((file) => file !== '' && !file.startsWith('test/') && !file.startsWith('bench/'));
  for (const file of files) await cp(join(root, file), join(checkout, file)).catch(() => {});
  const git = ['-c', 'user.name=Rig', '-c', 'user.email=rig@example.invalid'];
  for (const args of [
    ['init', '--quiet'],
    ['add', '--all'],
    [...git, 'commit', '--quiet', '--message', 'all'],
  ])
    await run('git', args, { cwd: checkout });
}

async function npmEnvironment(home: string, prefix: string): Promise<Readonly<Record<string, string>>> {
  const inheritedEnv = Object.entries(process.env).filter(
    (pair): pair is [string, string] => !pair[0].toLowerCase().startsWith('npm_') && pair[0] !== 'INIT_CWD',
  );
  const [registry = '', cache = '', userconfig = ''] = await Promise.all(
    ['registry', 'cache', 'userconfig'].map(async (name) =>
      (await run('npm', ['config', 'get', name], { cwd: root })).stdout.trim(),
    ),
  );
  return {
    ...Object.fromEntries(inheritedEnv),
    HOME: home,
    npm_config_registry: registry,
    npm_config_cache: cache,
    npm_config_userconfig: userconfig,
    npm_config_prefer_offline: 'true',
    npm_config_update_notifier: 'false',
    npm_config_prefix: prefix,
  };
}
