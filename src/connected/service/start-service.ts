import { randomBytes } from 'node:crypto';

import { systemClock } from '../../base/clock.ts';
import { ReportedError } from '../../base/program.ts';
import type { ExchangeProxy } from '../../node/proxy/exchange-proxy.ts';
import { processIdentity, type ProcessIdentity } from '../process-table.ts';
import { everyAddress, lanPassword, lanPasswordPath } from '../start/lan.ts';
import type { Ending } from '../start/opencode-process.ts';
import { cannotListen, choosePort } from '../start/port.ts';
import { OwnRegistrations, type Ports } from '../start/registrations.ts';
import { passSignals } from '../start/signals.ts';
import type { Prepared, StartOptions } from '../start/start.ts';
import { rememberTerminal } from '../start/terminal.ts';
import type { OpencodeGeneration } from './generation.ts';
import { type FoundService, OwnService } from './own-service.ts';
import { ServiceLock } from './service-lock.ts';
import { openServiceProxy } from './service-proxy.ts';
import { HeldOpen, ServiceTerminal } from './service-terminal.ts';

export interface ServiceStart extends StartOptions, Prepared {
  readonly generation: Extract<OpencodeGeneration, { number: 2 }>;
}

const PASSWORD_BYTES = 32;
/** How often a waiting wrapper checks whether the one that holds the registration has ended. */
const TAKEOVER_LOOK_MS = 2_000;

/**
 * Makes sure that the user's OpenCode 2 service runs, registers it while this program runs, and opens the person's terminal on it.
 * The service outlives this program. Resolves with how the terminal ended.
 */
export async function startOnService(start: ServiceStart): Promise<Ending> {
  const { process, guard, tell, headless, advert } = start;
  const client = headless ? new HeldOpen() : new ServiceTerminal(rememberTerminal(process));
  const signals = passSignals(process, client);
  const service = new OwnService(start);
  const ending = new AbortController();
  let held: HeldService | undefined;
  try {
    const found = await service
      .ensure(signals.giveUp, () => tell('starting the service of OpenCode 2'))
      .catch((error: unknown) => {
        // After an interrupt, an error message would be noise.
        if (!signals.giveUp.aborted) throw error;
        return undefined;
      });
    if (found === undefined || signals.giveUp.aborted) return { code: null, signal: signals.ended ?? 'SIGINT' };
    if (!headless) refuseReplacement(start, found);
    const self = await processIdentity(process.pid);
    held = new HeldService(start, service, { found, self });
    await held.openRelayProxy();
    const holder = await held.take();
    if (holder === undefined) {
      await held.openLan();
      await held.connect(signals.giveUp);
    } else
      tell(
        `the service is registered by another opencode-connected (pid ${holder.pid}); this one takes over when that ends`,
      );
    if (signals.ended !== undefined) return { code: null, signal: signals.ended };
    signals.starting();
    const terminal = await client.open(start.program, start.forOpencode, start.env);
    if (terminal !== undefined) guard.watch('opencode', terminal);
    if (holder === undefined) held.announce(terminal);
    const following = held.follow(terminal, holder !== undefined, ending.signal);
    if (headless)
      tell(`${held.name}: the service of OpenCode ${found.version} at ${found.url}; see opencode-connected status`);
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

/** A terminal of another version replaces the running service, which interrupts what runs there. */
function refuseReplacement({ generation, program }: ServiceStart, { version, pid }: FoundService): void {
  if (generation.version === undefined || generation.version === version) return;
  throw new ReportedError(
    `the running service is OpenCode ${version} (pid ${pid}), and ${program} is ${generation.version}: its terminal would replace that service and interrupt what runs there; when nothing does, run opencode service restart, or use --headless`,
  );
}

/** The registration of the service, its tunnel, and the proxies in front of it for the relay and the LAN. */
class HeldService {
  readonly #start: ServiceStart;
  readonly #service: OwnService;
  readonly #registrations: OwnRegistrations;
  readonly #lock: ServiceLock;
  readonly #ending = new AbortController();
  readonly #self: ProcessIdentity;
  readonly #relayPassword = randomBytes(PASSWORD_BYTES).toString('base64url');
  #terminal: ProcessIdentity;
  #found: FoundService;
  #relayProxy: ExchangeProxy | undefined;
  #lanProxy: ExchangeProxy | undefined;

  constructor(
    start: ServiceStart,
    service: OwnService,
    { found, self }: { readonly found: FoundService; readonly self: ProcessIdentity },
  ) {
    this.#start = start;
    this.#service = service;
    this.#lock = new ServiceLock(start.settings.stateDir, found.key, self);
    this.#registrations = new OwnRegistrations({
      ...start.registration,
      password: undefined,
      relayPassword: this.#relayPassword,
    });
    this.#self = self;
    this.#terminal = self;
    this.#found = found;
  }

  /** The registered name on this machine, or the wanted one before that. */
  get name(): string {
    return this.#registrations.name;
  }

  /** Resolves to undefined if this wrapper holds the service now, else to the wrapper that does. */
  async take(): Promise<ProcessIdentity | undefined> {
    const holder = await this.#lock.take();
    if (holder === undefined) this.#start.guard.remove(this.#registrations.stateFile);
    return holder;
  }

  /** With a relay, puts a proxy with a random password in front of the service; the tunnel leads to it. */
  async openRelayProxy(): Promise<void> {
    if (this.#start.registration.sshCommand === undefined) return;
    this.#relayProxy = await this.#proxy('127.0.0.1', 0, this.#relayPassword);
  }

  /** With --lan, puts a proxy on the LAN. @throws {ReportedError} it cannot listen on the port */
  async openLan(): Promise<void> {
    const { settings, onLan } = this.#start;
    if (!onLan) return;
    const { stateDir, connected } = settings;
    // OPENCODE_SERVER_PASSWORD may be that of an OpenCode 1.
    const password = await lanPassword({ stateDir });
    const host = everyAddress();
    const port = connected.lanPort ?? (await choosePort(host));
    this.#lanProxy = await this.#proxy(host, port, password).catch((error: unknown) => {
      throw cannotListen(port, error);
    });
  }

  connect(giveUp: AbortSignal): Promise<void> {
    return this.#registrations.connect(this.#ports, giveUp);
  }

  /** @param terminal the process that ends with the wrapper, if it is not the wrapper itself */
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
      lan: this.#lanProxy && { port: this.#lanProxy.port, passwordFile },
    });
  }

  /**
   * Updates the registration until `signal` aborts, since a service that restarts may use another port. If another wrapper holds
   * the service, first waits for it to end. Never rejects, and prints nothing: the terminal is the person's.
   */
  async follow(terminal: ProcessIdentity | undefined, isWaiting: boolean, signal: AbortSignal): Promise<void> {
    const { logger } = this.#start;
    try {
      if (isWaiting && !(await this.#takeOver(terminal, signal))) return;
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

  /** Waits for the end of the wrapper that holds the service, and takes its place. False if `signal` aborts first. */
  async #takeOver(terminal: ProcessIdentity | undefined, signal: AbortSignal): Promise<boolean> {
    const { logger } = this.#start;
    do {
      await systemClock.sleep(TAKEOVER_LOOK_MS, signal);
      if (signal.aborted) return false;
    } while ((await this.take()) !== undefined);
    logger.log('info', 'holds the registration of the service now');
    await this.openLan().catch((error: unknown) => logger.log('warn', 'not on the LAN', { reason: String(error) }));
    await this.#look(signal);
    await this.#registrations.move(this.#ports);
    this.announce(terminal);
    return true;
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

  /** Reads from its file where the service is now; keeps the last known place if the file names none. */
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
