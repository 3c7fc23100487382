import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { systemClock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { quoteShort } from '../../base/plain-text.ts';
import { VERSION } from '../../base/version.ts';
import type { Settings } from '../../config/settings.ts';
import { identifyProcess, processIdentity, type ProcessIdentity } from '../process-table.ts';
import { FIRST_WAIT_MS, RelayLink } from '../relay/relay-link.ts';
import { wasInterrupted } from '../relay/ssh-failures.ts';
import type { RelayState } from '../run-state.ts';
import { logPath } from './log-file.ts';
import { RunStateWriter } from './run-state-writer.ts';

/** PATH_MAX on Linux. */
const MAX_DIRECTORY_CHARS = 4096;
/** The terminal sends an interrupt to ssh and to this process at once, but a busy machine may wake ssh first. */
const LATE_INTERRUPT_MS = 1_000;

export interface RegistrationsOptions {
  readonly settings: Pick<Settings, 'registryDir' | 'stateDir'> & {
    readonly connected: Pick<Settings['connected'], 'relayRegistryDir'>;
  };
  /** The person's ssh command in words; undefined without a relay. */
  readonly sshCommand: readonly string[] | undefined;
  readonly id: string;
  /** The wanted name. A running instance keeps its name, so this one may get another. */
  readonly name: string;
  /** The password for callers on this machine. */
  readonly password: string | undefined;
  /** The password for callers through the tunnel. */
  readonly relayPassword: string | undefined;
  readonly onLan: boolean;
  readonly logger: Logger;
  readonly onSsh: (ssh: ProcessIdentity | undefined) => void;
  /** Prints a line for the person; not called once opencode has the terminal. */
  readonly tell: (line: string) => void;
}

export interface Ports {
  readonly own: number;
  /** Where the tunnel leads: to the opencode, or to a proxy before it. */
  readonly tunnel: number;
}

export interface RunningInstance {
  /** The process that ends with the wrapper. */
  readonly process: ProcessIdentity;
  /** The instance's own directory, absolute. With OpenCode 2 the one in which the wrapper was started. */
  readonly directory: string;
  /** The OpenCode 2 service, which works in the directories of its sessions. */
  readonly service?: { readonly url: string; readonly pid: number };
  /** The proxy on the LAN, if it is not the instance itself that listens there. */
  readonly lan?: { readonly port: number; readonly passwordFile: string } | undefined;
}

/** The registrations of one instance: on this machine, and on the relay if there is one. */
export class OwnRegistrations {
  readonly #options: RegistrationsOptions;
  readonly #stateFile: RunStateWriter;
  readonly #startedAt: string;
  #here: RelayLink | undefined;
  #relay: RelayLink | undefined;
  #instance: RunningInstance | undefined;
  #ports: Ports = { own: 0, tunnel: 0 };
  #connectedAt = '';
  #self: ProcessIdentity = { pid: process.pid };
  #closing: Promise<void> | undefined;

  constructor(options: RegistrationsOptions) {
    this.#options = options;
    this.#startedAt = new Date().toISOString();
    this.#stateFile = new RunStateWriter(options.settings.stateDir, options.id, options.logger);
  }

  get stateFile(): string {
    return this.#stateFile.path;
  }

  /** The registered name on this machine, or the wanted one before that. */
  get name(): string {
    return this.#here?.state.name ?? this.#options.name;
  }

  /**
   * Takes the name on this machine and connects to the relay; ssh may ask at the terminal. Prints the result, and retries in the
   * background what failed. Never rejects. `giveUp` ends the wait for the relay.
   */
  async connect(ports: Ports, giveUp: AbortSignal): Promise<void> {
    const { tell, name, settings } = this.#options;
    await this.#open(ports);
    const here = await this.#here?.connectFirst(new AbortController().signal);
    if (here?.kind !== 'connected')
      tell(
        `not registered on this machine (${settings.registryDir.path}): ${reasonOf(here)}; trying again in the background`,
      );
    else if (here.name !== name) tell(`another running instance is named ${name}; this one is ${here.name}`);
    this.#tellDirectory('this machine', this.#here, settings.registryDir);
    let there: RelayState | undefined;
    if (this.#relay !== undefined && !giveUp.aborted) {
      tell('connecting to the relay; Ctrl-C continues without it');
      there = await this.#relay.connectFirst(giveUp);
      if (there.kind === 'connected') tell(`connected to the relay as ${there.name}, port ${there.port} there`);
      else if (there.kind === 'closed') tell(`no connection to the relay: ${there.reason ?? 'closed'}`);
      else tell(`no connection to the relay: ${reasonOf(there)}; trying again in the background`);
      this.#tellDirectory('the relay', this.#relay, settings.connected.relayRegistryDir);
    }
    this.#keep();
    // An interrupt that arrives after opencode has started would be passed on to it.
    if (wasInterrupted(there?.reason))
      await delay(LATE_INTERRUPT_MS, undefined, { signal: giveUp }).catch(() => undefined);
  }

  /** Registers on other ports, to which the tunnel has to lead. Asks nothing. */
  async move(ports: Ports): Promise<void> {
    await this.#closeLinks();
    if (this.#closing !== undefined) return;
    await this.#open(ports);
    this.#keep();
  }

  announce(instance: RunningInstance): void {
    this.#instance = instance;
    this.#connectedAt = new Date().toISOString();
    this.#here?.announce();
    this.#relay?.announce();
    void this.#save();
  }

  /** Withdraws everything. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#instance = undefined;
      await this.#closeLinks();
      await this.#stateFile.remove();
    })();
    return this.#closing;
  }

  async #open(ports: Ports): Promise<void> {
    const { settings, sshCommand, id, name, password, relayPassword, logger, tell } = this.#options;
    this.#ports = ports;
    this.#self = await processIdentity(process.pid);
    const common = { id, name, describe: (port: number) => this.#describe(port), clock: systemClock, logger };
    this.#here = new RelayLink({
      ...common,
      password,
      localPort: ports.own,
      sshCommand: undefined,
      registryDir: settings.registryDir,
      onChange: () => void this.#save(),
    });
    this.#relay =
      sshCommand &&
      new RelayLink({
        ...common,
        password: relayPassword,
        localPort: ports.tunnel,
        sshCommand,
        registryDir: settings.connected.relayRegistryDir,
        onChange: () => {
          void this.#save();
          void this.#tellSsh();
        },
        onMessage: (line) => tell(`ssh: ${line}`),
      });
  }

  /** Warns if the directory is not the usual one: older versions of opencode-mcp look in one directory only. */
  #tellDirectory(where: string, link: RelayLink | undefined, { path }: Settings['registryDir']): void {
    if (link?.directory === undefined) return;
    const taken = quoteShort(link.directory, MAX_DIRECTORY_CHARS);
    this.#options.tell(
      `registers on ${where} in ${taken}; an older opencode-mcp there looks only in ${path}: upgrade it, or set its RELAY_REGISTRY_DIR to that`,
    );
  }

  async #tellSsh(): Promise<void> {
    const pid = this.#relay?.pid;
    this.#options.onSsh(pid === undefined ? undefined : await identifyProcess(pid));
  }

  #keep(): void {
    this.#here?.keep();
    this.#relay?.keep();
  }

  async #closeLinks(): Promise<void> {
    await Promise.all([this.#here?.close(), this.#relay?.close()]);
  }

  /** The fields of a registration, and the version of its format. */
  #describe(port: number): Record<string, unknown> | undefined {
    if (this.#instance === undefined) return undefined;
    const { directory, service } = this.#instance;
    return {
      protocol: 1,
      hostname: hostname(),
      port,
      localPort: this.#ports.own,
      ...(service === undefined && { cwd: directory }),
      connectedAt: this.#connectedAt,
    };
  }

  async #save(): Promise<void> {
    const { id, onLan, password, settings } = this.#options;
    const instance = this.#instance;
    if (instance === undefined || this.#closing !== undefined) return;
    const registryDir = this.#here?.directory ?? settings.registryDir.path;
    await this.#stateFile.write({
      id,
      name: this.name,
      pid: this.#self.pid,
      started: this.#self.started,
      opencodePid: instance.process.pid,
      opencodeStarted: instance.process.started,
      port: this.#ports.tunnel,
      directory: instance.directory,
      registryFile: join(registryDir, `${this.name}.json`),
      passwordFile: password === undefined ? undefined : join(registryDir, '.credentials', id),
      service: instance.service,
      onLan: onLan || undefined,
      lan: instance.lan,
      relay: this.#relay?.state,
      sshPid: this.#relay?.pid,
      logFile: logPath(settings.stateDir),
      startedAt: this.#startedAt,
      version: VERSION,
    });
  }
}

function reasonOf(state: RelayState | undefined): string {
  return state?.reason ?? `no answer within ${FIRST_WAIT_MS / 1000} s`;
}
