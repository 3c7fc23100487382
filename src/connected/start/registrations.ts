import { hostname } from 'node:os';
import { join } from 'node:path';

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { quoteName, singleLine } from '../../base/plain-text.ts';
import type { Settings } from '../../config/settings.ts';
import { identifyProcess, type ProcessIdentity } from '../process-table.ts';
import { createRelayLink, PATIENCE_MS, type RelayLink, type RelayState } from '../relay/relay-link.ts';
import { wasInterrupted } from '../relay/ssh-process.ts';
import { runStatePath } from '../run-state.ts';
import { RunStateWriter } from './run-state-writer.ts';

/** PATH_MAX on Linux. */
const MAX_DIRECTORY_CHARS = 4096;

export interface RegistrationsOptions {
  readonly id: string;
  /** The wanted one; a living instance of that name keeps it. */
  readonly name: string;
  readonly password: string | undefined;
  /** The password is for what comes through the tunnel alone. */
  readonly isForRelay?: boolean;
  /** It listens on the LAN as well. */
  readonly onLan: boolean;
  /** Of this machine. */
  readonly registryDir: Settings['registryDir'];
  readonly relay: { readonly sshCommand: readonly string[]; readonly registryDir: Settings['registryDir'] } | undefined;
  readonly stateDir: string;
  readonly logFile: string;
  /** Of this program. */
  readonly version: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Which ssh holds the connection to the relay now. */
  readonly onSsh: (ssh: ProcessIdentity | undefined) => void;
  /** Prints a line for the person; not called once opencode has the terminal. */
  readonly tell: (line: string) => void;
}

/** Where an opencode is reached. */
export interface Ports {
  /** Where it listens itself. */
  readonly own: number;
  /** Where the tunnel leads: to the opencode, or to what stands before it. */
  readonly tunnel: number;
}

/** An opencode that answers. */
export interface RunningInstance {
  /** What ends with the wrapper. */
  readonly process: ProcessIdentity;
  /** Its own, absolute: of OpenCode 2 that in which the wrapper was started. */
  readonly directory: string;
  /** It is the service of OpenCode 2, which works in the directories of its sessions. */
  readonly service?: { readonly url: string; readonly pid: number };
  /** What others on the LAN need, where that is not the password and the port registered here. */
  readonly lan?: { readonly port: number; readonly passwordFile: string };
}

/** Where one instance is registered: on this machine, and on the relay if there is one. */
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
    this.#startedAt = new Date(options.clock.now()).toISOString();
    this.#stateFile = new RunStateWriter(options.stateDir, options.id, options.logger);
  }

  get stateFile(): string {
    return runStatePath(this.#options.stateDir, this.#options.id);
  }

  /** As registered here, or as wanted. */
  get name(): string {
    return this.#here?.state.name ?? this.#options.name;
  }

  /**
   * Takes the name here, and opens the connection to the relay, at which ssh may ask at the terminal. Tells what came of it; what
   * failed is tried again from now on. Never rejects. `giveUp` ends the waiting for the relay; `interrupted`: an interrupt ended its ssh.
   */
  async connect(ports: Ports, giveUp: AbortSignal): Promise<{ readonly interrupted: boolean }> {
    const { tell, name, registryDir, relay } = this.#options;
    await this.#open(ports);
    let interrupted = false;
    const here = await this.#here?.connectFirst(new AbortController().signal);
    if (here?.kind === 'connected') {
      if (here.name !== name) tell(`${name} is a living instance of that name; this one is ${here.name}`);
    } else
      tell(`not registered on this machine (${registryDir.path}): ${reasonOf(here)}; trying again in the background`);
    this.#tellDirectory('this machine', this.#here, registryDir);
    if (relay !== undefined && !giveUp.aborted) {
      tell('connecting to the relay; Ctrl-C goes on without it');
      const there = await this.#relay?.connectFirst(giveUp);
      if (there?.kind === 'connected') tell(`connected to the relay as ${there.name}, port ${there.port} there`);
      else if (there?.kind === 'closed') tell(`no connection to the relay: ${there.reason ?? 'closed'}`);
      else tell(`no connection to the relay: ${reasonOf(there)}; trying again in the background`);
      this.#tellDirectory('the relay', this.#relay, relay.registryDir);
      interrupted = wasInterrupted(there?.reason);
    }
    this.#keep();
    return { interrupted };
  }

  /** Other ports: the tunnel has to lead there. Asks nothing. */
  async move(ports: Ports): Promise<void> {
    await this.#closeLinks();
    if (this.#closing !== undefined) return;
    await this.#open(ports);
    this.#keep();
  }

  /** From now on it is registered. */
  announce(instance: RunningInstance): void {
    this.#instance = instance;
    this.#connectedAt = new Date(this.#options.clock.now()).toISOString();
    this.#here?.announce();
    this.#relay?.announce();
    void this.#save();
  }

  /** Takes back everything. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#instance = undefined;
      await this.#closeLinks();
      await this.#stateFile.remove();
    })();
    return this.#closing;
  }

  async #open(ports: Ports): Promise<void> {
    const { id, name, registryDir, relay, clock, logger, tell } = this.#options;
    this.#ports = ports;
    this.#self = (await identifyProcess(process.pid)) ?? this.#self;
    const common = { id, name, describe: (port: number) => this.#describe(port), clock, logger };
    this.#here = createRelayLink({
      ...common,
      ...this.#passwordHere,
      localPort: ports.own,
      sshCommand: undefined,
      ...directoryOf(registryDir),
      onChange: () => void this.#save(),
    });
    this.#relay =
      relay &&
      createRelayLink({
        ...common,
        ...this.#password,
        localPort: ports.tunnel,
        sshCommand: relay.sshCommand,
        ...directoryOf(relay.registryDir),
        onChange: () => {
          void this.#save();
          void this.#tellSsh();
        },
        onMessage: (line) => tell(`ssh: ${line}`),
      });
  }

  get #password(): { readonly password?: string } {
    const { password } = this.#options;
    return password === undefined ? {} : { password };
  }

  get #passwordHere(): { readonly password?: string } {
    return this.#options.isForRelay === true ? {} : this.#password;
  }

  /** Versions before this one look for registrations in one directory only. */
  #tellDirectory(where: string, link: RelayLink | undefined, { path }: Settings['registryDir']): void {
    if (link?.directory === undefined) return;
    const taken = quoteName(singleLine(link.directory, MAX_DIRECTORY_CHARS));
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

  /** The fields of the original, and which version of the format they are. */
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
    const { id, onLan, logFile, version } = this.#options;
    const registryDir = this.#here?.directory ?? this.#options.registryDir.path;
    const instance = this.#instance;
    if (instance === undefined || this.#closing !== undefined) return;
    const { pid, started } = this.#self;
    await this.#stateFile.write({
      id,
      name: this.name,
      pid,
      ...(started !== undefined && { started }),
      opencodePid: instance.process.pid,
      ...(instance.process.started !== undefined && { opencodeStarted: instance.process.started }),
      port: this.#ports.tunnel,
      directory: instance.directory,
      registryFile: join(registryDir, `${this.name}.json`),
      ...(this.#passwordHere.password !== undefined && { passwordFile: join(registryDir, '.credentials', id) }),
      ...(instance.service !== undefined && { service: instance.service }),
      ...(onLan && { onLan }),
      ...(instance.lan !== undefined && { lan: instance.lan }),
      ...(this.#relay !== undefined && { relay: this.#relay.state }),
      ...(this.#relay?.pid !== undefined && { sshPid: this.#relay.pid }),
      logFile,
      startedAt: this.#startedAt,
      version,
    });
  }
}

function directoryOf({ path, explicit }: Settings['registryDir']): {
  readonly registryDirectory: string;
  readonly isDefaultDirectory: boolean;
} {
  return { registryDirectory: path, isDefaultDirectory: !explicit };
}

function reasonOf(state: RelayState | undefined): string {
  return state?.reason ?? `no answer within ${PATIENCE_MS / 1000} s`;
}
