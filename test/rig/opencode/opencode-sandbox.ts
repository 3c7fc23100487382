import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdir, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

import { CONTEXT_TOKENS, MODEL_ID, PROVIDER_ID, SMALL_MODEL_ID } from '../model/scripted-model.ts';
import { endProcessesIn } from '../processes.ts';
import { tempDir } from '../temp.ts';

const run = promisify(execFile);

/** No server listens there (the discard service): requests to the internet are refused at once. */
const NOWHERE = 'http://127.0.0.1:9/';

export type PermissionRule = 'ask' | 'allow' | 'deny';

export interface SandboxOptions {
  /** Without a model a prompt fails; everything else works. */
  readonly model?: { readonly url: string };
  /** A home to share, with its database, with another opencode. */
  readonly home?: string;
  /** An existing project. Default: a new one. */
  readonly directory?: string;
  /** The `permission` part of opencode.json. Default: bash asks, everything else is allowed. */
  readonly permission?: Readonly<Record<string, PermissionRule>>;
  /** Merged over the rig's opencode.json, key by key at the top level; the rig's provider stays beside others. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Basic auth of the server; opencode's user name is `opencode`. */
  readonly password?: string;
  /**
   * Seconds that opencode's clock is ahead (negative: behind) of this machine's. Holds for everything opencode does for
   * a directory (ids, times of sessions and messages); what happens before its first directory is loaded has the real time.
   */
  readonly fakeClockOffset?: number;
  /** Merged over the environment; `undefined` removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Directories and environment in which any opencode command (`serve`, the TUI, `run --attach`) stays inside the test. */
export interface OpencodeSandbox extends AsyncDisposable {
  readonly home: string;
  /** Absolute, symbolic links resolved. */
  readonly directory: string;
  /** The whole environment of the child: of the tests' own environment only PATH. */
  readonly env: Readonly<Record<string, string>>;
  /** Ends the processes with this environment and removes the directories. */
  close(): Promise<void>;
}

export async function openSandbox(options: SandboxOptions = {}): Promise<OpencodeSandbox> {
  const temp = tempDir('opencode-rig');
  const home = options.home ?? join(temp.path, 'home');
  await mkdir(home, { recursive: true });
  const tmp = temp.tmp;
  const directory = options.directory ?? join(temp.path, 'project');
  if (options.directory === undefined) await createProject(directory);
  const configFile = join(temp.path, 'opencode.json');
  const plugins =
    options.fakeClockOffset === undefined ? [] : [await writeClockPlugin(temp.path, options.fakeClockOffset)];
  await writeFile(configFile, JSON.stringify(configuration(options, plugins), undefined, 2));
  const close = async (): Promise<void> => {
    await endProcessesIn(tmp);
    await temp.close();
  };
  return {
    home,
    directory: await realpath(directory),
    env: environment(options, home, configFile, tmp),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/**
 * Makes a git repository with one commit. opencode derives the project's id from the root commit, whose message is random, so that
 * two repositories of the same second are two projects.
 */
export async function createProject(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  await writeFile(join(path, 'README.md'), '# A project\n');
  const env = {
    PATH: process.env['PATH'] ?? '',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_AUTHOR_NAME: 'Rig',
    GIT_AUTHOR_EMAIL: 'rig@example.invalid',
    GIT_COMMITTER_NAME: 'Rig',
    GIT_COMMITTER_EMAIL: 'rig@example.invalid',
  };
  for (const args of [
    ['init', '--quiet', '--initial-branch=main'],
    ['add', '.'],
    ['commit', '--quiet', '--message', `Begin ${randomUUID()}`],
  ]) {
    await run('git', args, { cwd: path, env });
  }
}

/**
 * Shifts opencode's Date by a plugin, which runs inside opencode and needs no library on the machine. On 1.18.10 and 1.18.33 the ids and
 * times were the same as with libfaketime. (BUN_OPTIONS=--preload does nothing to a compiled binary, and a time namespace does not
 * shift the wall clock.)
 */
async function writeClockPlugin(folder: string, offsetSeconds: number): Promise<string> {
  const path = join(folder, 'clock-plugin.js');
  await writeFile(
    path,
    `const Real = Date;
const now = () => Real.now() + ${Math.round(offsetSeconds * 1000)};
globalThis.Date = new Proxy(Real, {
  construct: (target, args, newTarget) => Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget),
  apply: () => new Real(now()).toString(),
  get: (target, key) => (key === 'now' ? now : Reflect.get(target, key)),
});
export const Clock = async () => ({});
`,
  );
  return pathToFileURL(path).href;
}

function configuration(options: SandboxOptions, plugins: readonly string[]): Readonly<Record<string, unknown>> {
  const { provider, ...config } = options.config ?? {};
  return {
    ...(plugins.length === 0 ? {} : { plugin: plugins }),
    $schema: 'https://opencode.ai/config.json',
    share: 'disabled',
    autoupdate: false,
    model: `${PROVIDER_ID}/${MODEL_ID}`,
    small_model: `${PROVIDER_ID}/${SMALL_MODEL_ID}`,
    permission: options.permission ?? { bash: 'ask' },
    provider: {
      [PROVIDER_ID]: {
        npm: '@ai-sdk/openai-compatible',
        name: 'Scripted',
        options: { baseURL: options.model?.url ?? `${NOWHERE}v1`, apiKey: 'scripted' },
        models: {
          [MODEL_ID]: {
            name: 'Scripted model',
            reasoning: true,
            tool_call: true,
            limit: { context: CONTEXT_TOKENS, output: 10_000 },
          },
          [SMALL_MODEL_ID]: { name: 'Scripted small model' },
        },
      },
      ...(provider as object | undefined),
    },
    ...config,
  };
}

function environment(
  options: SandboxOptions,
  home: string,
  configFile: string,
  tmp: string,
): Readonly<Record<string, string>> {
  const wanted: Readonly<Record<string, string | undefined>> = {
    PATH: process.env['PATH'] ?? '',
    HOME: home,
    XDG_CONFIG_HOME: join(home, '.config'),
    XDG_DATA_HOME: join(home, '.local', 'share'),
    XDG_STATE_HOME: join(home, '.local', 'state'),
    XDG_CACHE_HOME: join(home, '.cache'),
    TMPDIR: tmp,
    LANG: 'C.UTF-8',
    TERM: 'xterm-256color',
    OPENCODE_CONFIG: configFile,
    OPENCODE_DISABLE_MODELS_FETCH: '1',
    OPENCODE_DISABLE_AUTOUPDATE: '1',
    OPENCODE_DISABLE_LSP_DOWNLOAD: '1',
    OPENCODE_SERVER_PASSWORD: options.password,
    HTTP_PROXY: NOWHERE,
    HTTPS_PROXY: NOWHERE,
    NO_PROXY: '127.0.0.1,localhost',
    npm_config_registry: NOWHERE,
    // With a plugin configured, opencode installs its plugin package first; npm's own retries would hold every request for over a minute.
    npm_config_fetch_retries: '0',
    ...options.env,
  };
  return Object.fromEntries(Object.entries(wanted).filter((pair): pair is [string, string] => pair[1] !== undefined));
}
