import { spawnSync } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';

import { filesIn } from './connected-child.ts';
import type { DocBlock } from './doc-blocks.ts';
import { type FreshMachine, openFreshMachine } from './fresh-machine.ts';
import { NO_MULTICAST } from '../no-multicast.ts';
import { createProject, openSandbox, type OpencodeSandbox } from '../opencode/opencode-sandbox.ts';
import { freePort } from '../ports.ts';
import { type Sshd, startSshd } from '../network/sshd.ts';
import { type Answers, openTypedTerminal } from './typed-terminal.ts';
import { until } from '../wait.ts';

/** opencode takes seconds to start in a terminal, and up to a minute on a busy machine. */
const START_LIMIT_MS = 100_000;

/** The pages describe a laptop with this project. */
const PROJECT = 'my-project';
const NAME = `laptop-${PROJECT}`;

export interface NewcomerOptions {
  readonly model: { readonly url: string };
  /** Programs on the PATH besides the system's and Node. */
  readonly programs: Readonly<Record<string, string>>;
  /** The person's answers at prompts. */
  readonly answers: Answers;
}

export interface Ran {
  readonly code: number | null;
  readonly shown: string;
}

/** A person who follows this project's pages, with an empty home, a project and a host that ssh reaches. */
export class Newcomer implements AsyncDisposable {
  readonly home: string;
  readonly env: Readonly<Record<string, string>>;
  readonly #machine: FreshMachine;
  readonly #relay: Sshd;
  readonly #sandbox: OpencodeSandbox;
  readonly #answers: Answers;
  /** The placeholders of the pages with this person's values. */
  readonly #placeholders: readonly (readonly [placeholder: string, value: string])[];
  readonly #registry: string;
  /** By page: closes the terminal of a program that stays open, and waits until its registration is gone. */
  readonly #closers = new Map<string, () => Promise<void>>();

  private constructor(machine: FreshMachine, relay: Sshd, sandbox: OpencodeSandbox, answers: Answers, port: number) {
    this.#machine = machine;
    this.#relay = relay;
    this.#sandbox = sandbox;
    this.#answers = answers;
    this.home = machine.home;
    this.env = sandbox.env;
    this.#registry = registryOf(machine);
    this.#placeholders = [
      ['<address of this repository>', `file://${machine.checkout}`],
      ['you@relay', `${userInfo().username}@relay`],
      ['/tmp/opencode-relay', this.#registry],
      ['4096', String(port)],
    ];
  }

  static async open({ model, programs, answers }: NewcomerOptions): Promise<Newcomer> {
    const [machine, relay, port] = await Promise.all([openFreshMachine(), startSshd(), freePort()]);
    await mkdir(registryOf(machine), { mode: 0o700 });
    await Promise.all([fillBin(machine, relay, programs), fillRelay(machine, relay)]);
    const project = join(machine.home, PROJECT);
    await createProject(project);
    const env = {
      PATH: `${machine.prefix}/bin:${machine.path}/bin:${dirname(process.execPath)}:/usr/bin:/bin`,
      npm_config_prefix: machine.prefix,
      RELAY_REGISTRY_DIR: registryOf(machine),
      RELAY_REMOTE_REGISTRY_DIR: join(relay.home, 'registry'),
      INSTANCE_NAME: NAME,
      TRANSPORT: 'local-relay',
      HEALTH_CHECK_TIMEOUT_MS: '30000',
      ...NO_MULTICAST,
    };
    const sandbox = await openSandbox({ model, home: machine.home, directory: project, env });
    return new Newcomer(machine, relay, sandbox, answers, port);
  }

  /** Runs a block of a page in a terminal, in the state in which the page's previous block left the shell. */
  async run(block: DocBlock, extraEnv: Readonly<Record<string, string>> = {}): Promise<Ran> {
    const state = join(this.#machine.path, `${block.page.replaceAll('/', '-')}.state`);
    const script = join(this.#machine.path, 'block.sh');
    const commands = this.#placeholders.reduce((text, pair) => text.replaceAll(...pair), block.commands);
    await writeFile(
      script,
      `[ ! -f '${state}' ] || . '${state}'\nset -e\n${commands}\n{ export -p; echo "cd '$PWD'"; } > '${state}'\n`,
    );
    const keepsRunning = block.marks.includes('stays');
    const registry = block.page === 'docs/relay.md' ? join(this.#relay.home, 'registry') : this.#registry;
    const countBefore = await registrationsIn(registry);
    const terminal = openTypedTerminal(`bash '${script}'`, { ...this.env, ...extraEnv }, this.home, this.#answers);
    if (!keepsRunning) return { code: await terminal.ended, shown: terminal.shown() };
    let code: number | null | undefined;
    void terminal.ended.then((ended) => (code = ended));
    await until(
      `a registration in ${registry}`,
      async () => {
        if (code !== undefined) throw new Error(`the program ended with ${code}: ${terminal.shown().slice(0, 3_000)}`);
        return (await registrationsIn(registry)) > countBefore;
      },
      START_LIMIT_MS,
    ).catch((error: unknown) => {
      throw new Error(`the terminal shows:\n${terminal.shown().slice(0, 3_000)}`, { cause: error });
    });
    this.#closers.set(block.page, async () => {
      terminal.close();
      const isGone = async (): Promise<boolean> => (await registrationsIn(registry)) === countBefore;
      await until(`the program of ${block.page} to end`, isGone);
    });
    return { code: 0, shown: terminal.shown() };
  }

  /** Ends the programs that a page has started. */
  async leave(page: string): Promise<void> {
    await this.#closers.get(page)?.();
    this.#closers.delete(page);
  }

  /** The environment of a block that installs: this machine's settings of npm, except for the global prefix. */
  get installing(): Readonly<Record<string, string>> {
    const { npm_config_registry = '', npm_config_cache = '', npm_config_userconfig = '' } = this.#machine.env;
    const { HTTP_PROXY = '', HTTPS_PROXY = '', NO_PROXY = '' } = this.#machine.env;
    return { npm_config_registry, npm_config_cache, npm_config_userconfig, HTTP_PROXY, HTTPS_PROXY, NO_PROXY };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sandbox.close();
    await this.#relay.close();
    await this.#machine[Symbol.asyncDispose]();
  }
}

function registryOf({ path }: FreshMachine): string {
  return join(path, 'registry');
}

async function registrationsIn(registry: string): Promise<number> {
  return (await filesIn(registry)).filter((path) => path.endsWith('.json')).length;
}

/** Links the programs, and an ssh that knows the host `relay`: the real one reads its file only in the home of the password database. */
async function fillBin(machine: FreshMachine, relay: Sshd, programs: Readonly<Record<string, string>>): Promise<void> {
  const bin = join(machine.path, 'bin');
  await mkdir(bin);
  for (const [name, target] of Object.entries({ node: process.execPath, ...programs }))
    await symlink(target, join(bin, name));
  const words = relay.command.slice(1);
  const options = words.flatMap((word, index) => (words[index - 1] === '-o' ? [word.replace('=', ' ')] : []));
  const host = [
    'Host relay',
    'HostName 127.0.0.1',
    `Port ${relay.port}`,
    `IdentityFile ${words[words.indexOf('-i') + 1]}`,
  ];
  const config = join(machine.path, 'ssh_config');
  await writeFile(config, `${[...host, ...options].join('\n  ')}\n`);
  const ssh = spawnSync('sh', ['-c', 'command -v ssh'], { encoding: 'utf8' }).stdout.trim();
  await writeFile(join(bin, 'ssh'), `#!/bin/sh\nexec '${ssh}' -F '${config}' "$@"\n`, { mode: 0o755 });
}

/** The relay has the same installation, and its own registry. */
async function fillRelay({ prefix }: FreshMachine, { bin, home }: Sshd): Promise<void> {
  const settings = `RELAY_REGISTRY_DIR='${home}/registry' TRANSPORT=local-relay OPENCODE_MDNS_INTERFACES=none HEALTH_CHECK_TIMEOUT_MS=30000`;
  for (const name of ['opencode-mcp', 'opencode-connected']) {
    const command = `exec '${process.execPath}' '${prefix}/bin/${name}' "$@"`;
    await writeFile(join(bin, name), `#!/bin/sh\nexport ${settings}\n${command}\n`, { mode: 0o755 });
  }
}
