import type { OpencodeApi } from './api.ts';
import { type CallName, type Repeat, CALLS } from './dialects/opencode-1.ts';
import { type FailureKind, RequestError } from '../http/request-error.ts';

/** The calls by one endpoint. */
export interface EndpointApi {
  /** Equal for the same address. */
  readonly key: string;
  readonly api: OpencodeApi;
}

/** The best other endpoint of the same process, except those with these keys; undefined if there is none. Never rejects. */
export type NextEndpoint = (failed: readonly string[]) => Promise<EndpointApi | undefined>;

/**
 * The calls to one process by its current endpoint. If that fails, a call that may be repeated goes on by the next one, which is then
 * the current one. A prompt goes by the current endpoint only.
 */
export interface OpencodeClient extends OpencodeApi {
  /** The calls by the current endpoint only. */
  pinned(): OpencodeApi;
  /** Leaves a current endpoint that does not work, and ends its event streams. False if there is no other. */
  leave(): Promise<boolean>;
}

/** The endpoint failed; the server did not refuse. After `broken` and `timeout` the server may have acted. */
const ENDPOINT_FAILED: ReadonlySet<FailureKind> = new Set(['unreachable', 'broken', 'timeout']);

/** After two timeouts by different endpoints the server itself is slow; a third would only cost time. */
const MAX_TIMEOUTS = 2;

export function createClient(first: EndpointApi, next: NextEndpoint): OpencodeClient {
  return new Failover(first, next).client();
}

/** Subscribing changes nothing, and an endpoint without an event stream cannot follow a turn. */
const anything = ({ kind }: RequestError): boolean => kind !== 'cancelled';

const MAY_REPEAT: Readonly<Record<Repeat, (error: RequestError) => boolean>> = {
  always: ({ kind }) => ENDPOINT_FAILED.has(kind),
  unsent: ({ kind }) => kind === 'unreachable',
  never: () => false,
};

class Failover {
  readonly #next: NextEndpoint;
  #endpoint: EndpointApi;
  /** Aborts when the current endpoint is left: its event streams would only fall silent. */
  #left = new AbortController();
  #moving: { readonly asked: string; readonly moved: Promise<boolean> } | undefined;

  constructor(first: EndpointApi, next: NextEndpoint) {
    this.#endpoint = first;
    this.#next = next;
  }

  client(): OpencodeClient {
    const calls = (Object.keys(CALLS) as CallName[]).map((name) => [
      name,
      (...args: never[]) =>
        this.#call(
          (api) => (api[name] as (...args: never[]) => Promise<unknown>)(...args),
          MAY_REPEAT[CALLS[name].repeat],
        ),
    ]);
    return {
      ...(Object.fromEntries(calls) as Pick<OpencodeApi, CallName>),
      isIdempotent: this.#endpoint.api.isIdempotent,
      events: (directory, signal) =>
        this.#call((api) => {
          const left = this.#left.signal;
          return api.events(directory, signal === undefined ? left : AbortSignal.any([left, signal]));
        }, anything),
      pinned: () => this.#endpoint.api,
      leave: () => this.#leave([this.#endpoint.key]),
    };
  }

  async #call<T>(ask: (api: OpencodeApi) => Promise<T>, mayRepeat: (error: RequestError) => boolean): Promise<T> {
    const failures: { readonly key: string; readonly error: RequestError }[] = [];
    for (;;) {
      const endpoint = this.#endpoint;
      try {
        return await ask(endpoint.api);
      } catch (error) {
        if (!(error instanceof RequestError)) {
          // Not sent by this endpoint, but it may have been by an earlier one.
          const sent = failures.findLast(({ error: { kind } }) => kind !== 'unreachable');
          if (sent !== undefined) throw together(failures, sent.error);
          throw error;
        }
        // Another call has left this endpoint, which cancelled this request.
        const wasLeft = error.kind === 'cancelled' && endpoint !== this.#endpoint;
        failures.push({ key: endpoint.key, error });
        const timeouts = failures.filter(({ error: { kind } }) => kind === 'timeout').length;
        if (!(wasLeft || mayRepeat(error)) || timeouts >= MAX_TIMEOUTS) throw together(failures, error);
        if (!(await this.#leave(failures.map(({ key }) => key)))) throw together(failures, error);
      }
    }
  }

  /** Returns whether the current endpoint is then none of `failed`. Calls that fail together share one search. */
  async #leave(failed: readonly string[]): Promise<boolean> {
    const asked = failed.join('\n');
    while (failed.includes(this.#endpoint.key)) {
      this.#moving ??= { asked, moved: this.#move(failed).finally(() => (this.#moving = undefined)) };
      const { asked: joined, moved } = this.#moving;
      if (!(await moved) && joined === asked) return false;
    }
    return true;
  }

  async #move(failed: readonly string[]): Promise<boolean> {
    const next = await this.#next(failed);
    if (next === undefined || failed.includes(next.key)) return false;
    this.#endpoint = next;
    this.#left.abort();
    this.#left = new AbortController();
    return true;
  }
}

/** One error with all messages; kind and status are those of `last`. */
function together(failures: readonly { readonly error: RequestError }[], last: RequestError): RequestError {
  if (failures.length < 2) return last;
  const said = failures.map(({ error }) => error.message).join('; by another endpoint: ');
  return new RequestError(last.kind, said, {
    cause: last,
    ...(last.status === undefined ? {} : { status: last.status }),
  });
}
