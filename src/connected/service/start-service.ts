import { randomBytes } from 'node:crypto';

import type { Clock } from '../../base/clock.ts';
import { errorCode } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Guard } from '../start/guard.ts';
import { everyAddress, type LanAdvert, lanPassword, lanPasswordPath } from '../start/lan.ts';
import type { Ending } from '../start/opencode-process.ts';
import { choosePort } from '../start/port.ts';
import { OwnRegistrations, type Ports, type RegistrationsOptions } from '../start/registrations.ts';
import { passSignals } from '../start/signals.ts';
import type { StartOptions } from '../start/start.ts';
import { rememberTerminal } from '../start/terminal.ts';
import type { ExchangeProxy } from '../../node/proxy/exchange-proxy.ts';
import { identifyProcess, type ProcessIdentity } from '../process-table.ts';
import type { OpencodeGeneration } from './generation.ts';
import { type FoundService, OwnService, ServiceError } from './own-service.ts';
import { ServiceLock } from './service-lock.ts';
import { openServiceProxy } from './service-proxy.ts';
import { HeldOpen, ServiceTerminal } from './service-terminal.ts';

export interface ServiceStart extends StartOptions {
  readonly generation: Extract<OpencodeGeneration, { number: 2 }>;
  /** Absolute. */
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly guard: Guard;
  /** Of the registrations, but for what is this generation's own. */
  readonly registration: Omit<RegistrationsOptions, 'password' | 'isForRelay'>;
  /** Undefined without --lan. */
  readonly advert: LanAdvert | undefined;
}

const PASSWORD_BYTES = 32;
/** Between two looks whether the wrapper that holds the registration has ended. */
const TAKEOVER_LOOK_MS = 2_000;

/**
 * Makes sure that the user's OpenCode 2 service runs, registers it for as long as this runs, and opens the person's terminal on it.
 * The service goes on afterwards. Resolves with how the terminal ended.
 */
export async function startOnService(start: ServiceStart): Promise<Ending> {
  const { process, guard, tell, headless, advert } = start;
  const client = headless ? new HeldOpen() : new ServiceTerminal(rememberTerminal(process));
  const signals = passSignals(process, client);
  const service = new OwnService({ ...start, settings: start.settings });
  const ending = new AbortController();
  let held: HeldService | undefined;
  try {
    const found = await service
      .ensure(signals.giveUp, () => tell('starting the service of OpenCode 2'))
      .catch((error: unknown) => {
        // Who interrupted it knows why it does not answer.
        if (!signals.giveUp.aborted) throw error;
        return undefined;
      });
    if (found === undefined || signals.giveUp.aborted) return { code: null, signal: signals.ended ?? 'SIGINT' };
    if (!headless) refuseReplacement(start, found);
    held = await HeldService.open(start, service, found);
    const holder = await held.take();
    let interrupted = false;
    if (holder === undefined) {
      await held.openLan();
      ({ interrupted } = await held.connect(signals.giveUp));
    } else
      tell(
        `the service is registered by another opencode-connected (pid ${holder.pid}); this one takes over when that ends`,
      );
    if (signals.ended !== undefined) return { code: null, signal: signals.ended };
    signals.starting({ interrupted });
    const terminal = await client.open(start.program, start.forOpencode, start.env);
    if (terminal !== undefined) guard.watch(terminal);
    if (holder === undefined) held.announce(terminal);
    const following = held.follow(terminal, holder !== undefined, ending.signal);
    if (headless)
      tell(
        `${held.name}: the service of OpenCode ${found.version} at ${found.url}; opencode-connected status says more`,
      );
    const result = await client.ended;
    ending.abort();
    await following;
    return result;
  } finally {
    ending.abort();
    await Promise.all([held?.close(), service.close(), advert?.close()]);
    guard.dismiss();
    signals.stop();
  }
}

/** A newer terminal replaces the service that it finds: what runs there would be cut. */
function refuseReplacement({ generation, program }: ServiceStart, { version, pid }: FoundService): void {
  if (generation.version === undefined || generation.version === version) return;
  throw new ServiceError(
    `the service that runs is OpenCode ${version} (pid ${pid}), and ${program} is ${generation.version}: its terminal would replace that service and interrupt what runs there; when nothing does, run opencode service restart, or use --headless`,
  );
}

interface Parts {
  readonly start: ServiceStart;
  readonly service: OwnService;
  readonly registrations: OwnRegistrations;
  readonly lock: ServiceLock;
  readonly self: ProcessIdentity;
}

/** The registration of the service, its tunnel, and what stands before it there and on the LAN. */
class HeldService {
  readonly #start: ServiceStart;
  readonly #service: OwnService;
  readonly #registrations: OwnRegistrations;
  readonly #lock: ServiceLock;
  readonly #ending = new AbortController();
  readonly #self: ProcessIdentity;
  #terminal: ProcessIdentity;
  #found: FoundService;
  /** Before the tunnel, with a password of this start. */
  #relayProxy: ExchangeProxy | undefined;
  #lanProxy: ExchangeProxy | undefined;

  static async open(start: ServiceStart, service: OwnService, found: FoundService): Promise<HeldService> {
    const { settings, registration } = start;
    const self = (await identifyProcess(process.pid)) ?? { pid: process.pid };
    const lock = new ServiceLock(settings.stateDir, found.key, self);
    const password = randomBytes(PASSWORD_BYTES).toString('base64url');
    const registrations = new OwnRegistrations({ ...registration, password, isForRelay: true });
    const held = new HeldService({ start, service, registrations, lock, self }, found);
    if (registration.relay !== undefined) held.#relayProxy = await held.#proxy('127.0.0.1', 0, password);
    return held;
  }

  private constructor({ start, service, registrations, lock, self }: Parts, found: FoundService) {
    this.#start = start;
    this.#service = service;
    this.#registrations = registrations;
    this.#lock = lock;
    this.#self = self;
    this.#terminal = self;
    this.#found = found;
  }

  /** As registered here, or as wanted. */
  get name(): string {
    return this.#registrations.name;
  }

  /** Undefined once it is this wrapper's to hold, else whose it is. */
  async take(): Promise<ProcessIdentity | undefined> {
    const holder = await this.#lock.take();
    if (holder === undefined) this.#start.guard.remove(this.#registrations.stateFile);
    return holder;
  }

  /** With --lan. Rejects with a `ServiceError` where the port is another's. */
  async openLan(): Promise<void> {
    const { settings, clock, onLan } = this.#start;
    if (!onLan) return;
    const { stateDir, connected } = settings;
    // Not OPENCODE_SERVER_PASSWORD: it may be that of an OpenCode 1.
    const password = await lanPassword({ stateDir }, clock);
    const host = everyAddress();
    const port = connected.lanPort ?? (await choosePort(host));
    this.#lanProxy = await this.#proxy(host, port, password).catch((error: unknown) => {
      throw new ServiceError(
        `cannot listen on port ${port} (${errorCode(error) ?? String(error)}): another process does, or this user may not; end it, or set OPENCODE_LAN_PORT to another`,
        { cause: error },
      );
    });
  }

  connect(giveUp: AbortSignal): Promise<{ readonly interrupted: boolean }> {
    return this.#registrations.connect(this.#ports, giveUp);
  }

  /** @param terminal what ends with the wrapper, if it is not the wrapper itself */
  announce(terminal: ProcessIdentity | undefined): void {
    this.#terminal = terminal ?? this.#self;
    this.#register();
    if (this.#lanProxy !== undefined) this.#start.advert?.announce(this.name, { port: this.#lanProxy.port });
  }

  #register(): void {
    const { url, pid } = this.#found;
    const passwordFile = lanPasswordPath(this.#start.settings.stateDir);
    this.#registrations.announce({
      process: this.#terminal,
      directory: this.#start.directory,
      service: { url, pid },
      ...(this.#lanProxy !== undefined && { lan: { port: this.#lanProxy.port, passwordFile } }),
    });
  }

  /**
   * Keeps the registration true until `signal` aborts: a service that starts again may be on another port. Waits before for its
   * turn where another wrapper holds it. Never rejects, and says nothing: the terminal is the person's.
   */
  async follow(terminal: ProcessIdentity | undefined, isWaiting: boolean, signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#start;
    try {
      for (let holds = !isWaiting; !holds && !signal.aborted;) {
        await clock.sleep(TAKEOVER_LOOK_MS, signal);
        if (signal.aborted) return;
        holds = (await this.take()) === undefined;
        if (!holds) continue;
        logger.log('info', 'holds the registration of the service now');
        await this.openLan().catch((error: unknown) => logger.log('warn', 'not on the LAN', { reason: String(error) }));
        await this.#look(signal);
        await this.#registrations.move(this.#ports);
        this.announce(terminal);
      }
      for await (const _ of this.#service.changes(signal)) {
        const before = this.#found;
        await this.#look(signal);
        if (before.port === this.#found.port && before.pid === this.#found.pid) continue;
        logger.log('info', 'the service has started again', { url: this.#found.url, pid: this.#found.pid });
        if (before.port !== this.#found.port) await this.#registrations.move(this.#ports);
        this.#register();
      }
    } catch (error) {
      logger.log('warn', 'cannot follow the service', { reason: String(error) });
    }
  }

  async close(): Promise<void> {
    this.#ending.abort();
    this.#relayProxy?.close();
    this.#lanProxy?.close();
    await this.#registrations.close();
    await this.#lock.release();
  }

  get #ports(): Ports {
    const { port } = this.#found;
    return { own: port, tunnel: this.#relayProxy?.port ?? port };
  }
  /** Where the service is by its file now; the same where that names none. */
  async #look(signal: AbortSignal): Promise<void> {
    const candidate = await this.#service.now(signal);
    const pid = candidate?.claims.service?.pid;
    if (candidate === undefined || pid === undefined) return;
    const { url } = candidate.endpoint;
    this.#found = { ...this.#found, url, pid, port: Number(new URL(url).port) };
  }

  #proxy(host: string, port: number, password: string): Promise<ExchangeProxy> {
    return openServiceProxy({
      host,
      port,
      password,
      service: () => this.#service.connection(this.#ending.signal),
    });
  }
}
