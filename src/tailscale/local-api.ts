import { Agent, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type Clock, repeat } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { ChangeNotifier } from '../base/change-notifier.ts';
import { reasonOf } from '../base/errors.ts';
import { type AddressSystem, localApiAddress } from './address.ts';
import { dialPeer } from './dial.ts';
import type { Exchange } from '../http/exchange.ts';
import { type Asking, exchangeLocal, failure, openLocal, refused } from './exchange.ts';
import { parseExact, statusOf, whoisOf } from './status.ts';
import { type LocalApi, LocalApiError, type TailnetStatus, type Whois } from './types.ts';

export interface LocalApiOptions {
  /** Default: the path of this system. */
  readonly socketPath?: string | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly system?: AddressSystem;
}

/** The status of 5,000 peers takes some tenths of a second. Must be below the deadline of a scan. */
const STATUS_TIMEOUT_MS = 5000;
/** Short, because a caller's request is waiting. */
const WHOIS_TIMEOUT_MS = 2000;
const BUS_HEADERS_TIMEOUT_MS = 5000;
/** A restarted daemon is back within a second; without one, this costs a failed connect every ten. */
const BUS_RETRY_FIRST_MS = 100;
const BUS_RETRY_MAX_MS = 10_000;
/** The first dial of a peer negotiates a path, over DERP at worst. */
const DIAL_TIMEOUT_MS = 10_000;

/** 562 peers have 870 KB: room for 40,000. */
const MAX_STATUS_BYTES = 64 * 1024 * 1024;
const MAX_WHOIS_BYTES = 1024 * 1024;

/**
 * Since 1.100: bits 1 (initial state), 4 (no private keys), 12 and 14 (changes instead of whole netmaps). Before: bit 8 (rate
 * limit) instead of 12 and 14. 1.102 refuses both together.
 */
const BUS_MASK = 20_498;
const BUS_MASK_BEFORE_1_100 = 274;

/** Every new connection of a caller waits for a whois, a third of which is connecting. Callers come in bursts; idle sockets are closed. */
const WHOIS_CONNECTIONS = { keepAlive: true, maxSockets: 16, maxFreeSockets: 4, timeout: 5000 } as const;

/** A client of tailscaled's LocalAPI. Opens nothing before its first call. */
export function createLocalApi(options: LocalApiOptions): LocalApi {
  return new SocketLocalApi(options);
}

/** Why there is no usable tailnet in this state, and what to do; undefined while it runs. */
export function backendProblem(state: string): string | undefined {
  return state === 'Running' ? undefined : (PROBLEMS.get(state) ?? 'tailscaled is still starting');
}

const PROBLEMS: ReadonlyMap<string, string> = new Map([
  ['NeedsLogin', 'tailscaled is logged out; run tailscale up'],
  ['NeedsMachineAuth', 'an admin of the tailnet must approve this machine'],
  ['Stopped', 'Tailscale is stopped; run tailscale up'],
]);

class SocketLocalApi implements LocalApi {
  readonly #options: LocalApiOptions;
  readonly #whoisConnections = new Agent(WHOIS_CONNECTIONS);

  constructor(options: LocalApiOptions) {
    this.#options = options;
  }

  status(signal?: AbortSignal): Promise<TailnetStatus> {
    return this.#statusAt('status', MAX_STATUS_BYTES, signal);
  }

  async whois(address: string, signal?: AbortSignal): Promise<Whois | undefined> {
    const path = `whois?addr=${encodeURIComponent(address)}`;
    const asking: Asking = {
      ...this.#asking(path, WHOIS_TIMEOUT_MS, MAX_WHOIS_BYTES, signal),
      agent: this.#whoisConnections,
    };
    const answer = await exchangeLocal(asking);
    if (answer.status === 404) return undefined;
    if (answer.status !== 200) throw refused(answer, asking);
    const whois = whoisOf(parsed(answer, asking));
    if (whois === undefined) throw failure('failed', asking, 'the answer names no node');
    return whois;
  }

  watch(signal: AbortSignal): AsyncIterable<void> {
    const notifier = new ChangeNotifier(signal);
    void this.#followBus(notifier);
    return notifier;
  }

  async dial(host: string, port: number, signal?: AbortSignal): Promise<Duplex> {
    const asking: Asking = { ...this.#asking('dial', DIAL_TIMEOUT_MS, MAX_WHOIS_BYTES, signal), method: 'POST' };
    try {
      return await dialPeer(asking, host, port);
    } catch (error) {
      if (!(error instanceof LocalApiError) || error.kind !== 'failed' || signal?.aborted) throw error;
      throw (await this.#stopped(asking, error)) ?? error;
    }
  }

  /** tailscaled reports only that a dial failed; if it is logged out, that is the better explanation. */
  async #stopped(asking: Asking, cause: LocalApiError): Promise<LocalApiError | undefined> {
    const status = await this.#ownStatus(asking.signal).catch(() => undefined);
    const problem = status && backendProblem(status.backendState);
    return problem === undefined ? undefined : failure('stopped', asking, problem, cause);
  }

  /**
   * Notifies when the bus opens, sends anything, or ends. Its content, which may be whole netmaps, is not parsed. Silence is
   * normal: an idle tailnet sends nothing.
   */
  async #followBus(notifier: ChangeNotifier): Promise<void> {
    const { clock, logger } = this.#options;
    const signal = notifier.ended;
    let logged: string | undefined;
    await repeat({ clock, signal, firstMs: BUS_RETRY_FIRST_MS, maxMs: BUS_RETRY_MAX_MS }, async () => {
      let bus: IncomingMessage | undefined;
      try {
        bus = await this.#openBus(signal);
        logged = undefined;
        notifier.notify();
        for await (const _ of bus) notifier.notify();
      } catch (error) {
        const reason = reasonOf(error);
        if (!signal.aborted && reason !== logged) logger.log('debug', 'the IPN bus is not open', { reason });
        logged = reason;
      }
      // Whatever ended it, the daemon may have changed.
      if (bus !== undefined) notifier.notify();
      return 'again';
    });
  }

  async #openBus(signal: AbortSignal): Promise<IncomingMessage> {
    const { version } = await this.#ownStatus(signal);
    const asking = this.#asking(
      `watch-ipn-bus?mask=${maskFor(version)}`,
      BUS_HEADERS_TIMEOUT_MS,
      MAX_WHOIS_BYTES,
      signal,
    );
    const response = await openLocal(asking);
    if (response.statusCode === 200) return response;
    response.destroy();
    throw refused({ status: response.statusCode ?? 0, text: '' }, asking);
  }

  #ownStatus(signal: AbortSignal | undefined): Promise<TailnetStatus> {
    return this.#statusAt('status?peers=false', MAX_WHOIS_BYTES, signal);
  }

  async #statusAt(path: string, maxBytes: number, signal: AbortSignal | undefined): Promise<TailnetStatus> {
    const asking = this.#asking(path, STATUS_TIMEOUT_MS, maxBytes, signal);
    const answer = await exchangeLocal(asking);
    if (answer.status !== 200) throw refused(answer, asking);
    const status = statusOf(parsed(answer, asking));
    if (status === undefined) throw failure('failed', asking, 'the answer is not a status as tailscaled 1.98 gives it');
    return status;
  }

  #asking(path: string, timeoutMs: number, maxBytes: number, signal: AbortSignal | undefined): Asking {
    const { socketPath, system, clock } = this.#options;
    const address = localApiAddress(socketPath, system);
    return { address, method: 'GET', path, timeoutMs, maxBytes, clock, signal };
  }
}

function parsed({ text }: Exchange, asking: Asking): unknown {
  try {
    return parseExact(text);
  } catch (cause) {
    throw failure('failed', asking, 'the answer is not JSON', cause);
  }
}

/** `version` is like `1.98.10-t0123abc`. An unknown one gets the mask that every version accepts. */
function maskFor(version: string | undefined): number {
  const [, major = '0', minor = '0'] = /^(\d+)\.(\d+)/.exec(version ?? '') ?? [];
  const isNew = Number(major) > 1 || (Number(major) === 1 && Number(minor) >= 100);
  return isNew ? BUS_MASK : BUS_MASK_BEFORE_1_100;
}
