import { Agent } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { ChangeNotifier } from '../base/change-notifier.ts';
import { type AddressSystem, localApiAddress } from './address.ts';
import { followBus } from './bus.ts';
import { dialPeer } from './dial.ts';
import type { Exchange } from '../http/exchange.ts';
import { type Asking, exchangeLocal, failure, openLocal, refused } from './exchange.ts';
import { parseExact, statusOf, versionOf, whoisOf } from './status.ts';
import { type BackendState, type LocalApi, LocalApiError, type TailnetStatus, type Whois } from './types.ts';

export interface LocalApiOptions {
  /** Unset: where tailscaled has it on this system. */
  readonly socketPath?: string | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly system?: AddressSystem;
}

/** A local daemon answers in milliseconds; the status of 5,000 peers took it some tenths of a second. Below the deadline of a scan. */
const STATUS_TIMEOUT_MS = 5000;
/** A request waits for it. */
const WHOIS_TIMEOUT_MS = 2000;
const BUS_HEADERS_TIMEOUT_MS = 5000;
/** The first dial of a peer negotiates its path, over DERP at worst. */
const DIAL_TIMEOUT_MS = 10_000;

/** 562 peers were 870 KB: room for 40,000. */
const MAX_STATUS_BYTES = 64 * 1024 * 1024;
const MAX_WHOIS_BYTES = 1024 * 1024;

/**
 * Bits 1 (initial state), 4 (no private keys), 12 and 14 (changes instead of whole netmaps), since 1.100; before, bit 8
 * (limits the rate) in place of the latter. 1.102 refuses the one with the other.
 */
const BUS_MASK = 20_498;
const BUS_MASK_BEFORE_1_100 = 274;

/**
 * For whois, which every new connection of a caller waits for: connecting is a third of it. Callers come in bursts, and
 * between them nothing is held open.
 */
const WHOIS_CONNECTIONS = { keepAlive: true, maxSockets: 16, maxFreeSockets: 4, timeout: 5000 } as const;

/** A client of tailscaled's LocalAPI. Opens nothing before its first call, and holds nothing for long after its last. */
export function createLocalApi(options: LocalApiOptions): LocalApi {
  return new SocketLocalApi(options);
}

/** Why there is no tailnet to use in this state, and what to do; undefined while it runs. */
export function backendProblem(state: BackendState): string | undefined {
  return state === 'Running' ? undefined : (PROBLEMS.get(state) ?? 'tailscaled is still starting');
}

const PROBLEMS: ReadonlyMap<string, string> = new Map([
  ['NeedsLogin', 'tailscaled is logged out; run tailscale up'],
  ['NeedsMachineAuth', 'this machine waits for an admin of the tailnet to approve it'],
  ['Stopped', 'Tailscale is stopped; run tailscale up'],
]);

class SocketLocalApi implements LocalApi {
  readonly #options: LocalApiOptions;
  readonly #whoisConnections = new Agent(WHOIS_CONNECTIONS);

  constructor(options: LocalApiOptions) {
    this.#options = options;
  }

  async status(signal?: AbortSignal): Promise<TailnetStatus> {
    const asking = this.#asking('status', STATUS_TIMEOUT_MS, MAX_STATUS_BYTES, signal);
    const status = statusOf(jsonOf(await this.#ask(asking), asking));
    if (status === undefined) throw failure('failed', asking, 'the answer is not a status as tailscaled 1.98 gives it');
    return status;
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
    const whois = whoisOf(jsonOf(answer, asking));
    if (whois === undefined) throw failure('failed', asking, 'the answer names no node');
    return whois;
  }

  watch(signal: AbortSignal): AsyncIterable<void> {
    const notifier = new ChangeNotifier();
    const stop = new AbortController();
    const end = (): void => notifier.end();
    notifier.onEnd = () => {
      signal.removeEventListener('abort', end);
      stop.abort();
    };
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    else void followBus((inner) => this.#openBus(inner), notifier, stop.signal, this.#options);
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

  /** tailscaled says of a dial only that it failed; that it is logged out explains it better. */
  async #stopped(asking: Asking, cause: LocalApiError): Promise<LocalApiError | undefined> {
    const state = await this.#withoutPeers(asking.signal).then(
      (value) => statusOf(value)?.backendState,
      () => undefined,
    );
    const problem = state === undefined ? undefined : backendProblem(state);
    return problem === undefined ? undefined : failure('stopped', asking, problem, cause);
  }

  async #openBus(signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const mask = maskFor(versionOf(await this.#withoutPeers(signal)));
    const path = `watch-ipn-bus?mask=${mask}`;
    const asking = this.#asking(path, BUS_HEADERS_TIMEOUT_MS, MAX_WHOIS_BYTES, signal);
    const response = await openLocal(asking);
    if (response.statusCode === 200) return response as AsyncIterable<Uint8Array>;
    response.destroy();
    throw refused({ status: response.statusCode ?? 0, text: '' }, asking);
  }

  async #withoutPeers(signal: AbortSignal | undefined): Promise<unknown> {
    const asking = this.#asking('status?peers=false', STATUS_TIMEOUT_MS, MAX_WHOIS_BYTES, signal);
    return jsonOf(await this.#ask(asking), asking);
  }

  async #ask(asking: Asking): Promise<Exchange> {
    const answer = await exchangeLocal(asking);
    if (answer.status !== 200) throw refused(answer, asking);
    return answer;
  }

  #asking(path: string, timeoutMs: number, maxBytes: number, signal: AbortSignal | undefined): Asking {
    const { socketPath, system, clock } = this.#options;
    const address = localApiAddress(socketPath, system);
    return { address, method: 'GET', path, timeoutMs, maxBytes, clock, signal };
  }
}

function jsonOf({ text }: Exchange, asking: Asking): unknown {
  try {
    return parseExact(text);
  } catch (cause) {
    throw failure('failed', asking, 'the answer is not JSON', cause);
  }
}

/** `version` is like `1.98.10-t0123abc`. An unknown one gets the mask that every version takes. */
function maskFor(version: string | undefined): number {
  const [, major = '0', minor = '0'] = /^(\d+)\.(\d+)/.exec(version ?? '') ?? [];
  const isNew = Number(major) > 1 || (Number(major) === 1 && Number(minor) >= 100);
  return isNew ? BUS_MASK : BUS_MASK_BEFORE_1_100;
}
