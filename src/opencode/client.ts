import type { OpencodeApi } from './api.ts';
import { type CallName, type Repeat, CALLS } from './dialects/opencode-1.ts';
import { type FailureKind, RequestError } from '../http/request-error.ts';

/** One way to an opencode process. */
export interface EndpointApi {
  /** Equal for the same address, whenever it was looked at. */
  readonly key: string;
  readonly api: OpencodeApi;
}

/**
 * The best way to the very process that the first one led to, but none with these keys; undefined where there is none now.
 * Never rejects.
 */
export type NextEndpoint = (failed: readonly string[]) => Promise<EndpointApi | undefined>;

/**
 * The calls to one process by whatever way leads there. What fails on the way in use, and may be repeated, goes on by the
 * next within the same call; that way is then in use. A prompt goes by the way in use and by no other.
 */
export interface OpencodeClient extends OpencodeApi {
  /** The calls by the way in use now, and by no other later. */
  pinned(): OpencodeApi;
  /** Goes on by another way, because the one in use leads nowhere; false where there is none. Event streams by the old one end. */
  leave(): Promise<boolean>;
}

/** What says that the way failed, and not that the server refused. After `broken` and `timeout` the server may have acted. */
const WAY_FAILED: ReadonlySet<FailureKind> = new Set(['unreachable', 'broken', 'timeout']);

/** Two ways by which others get their answers, and none comes by either: it is the server that is slow, and a third would only cost time. */
const MAX_TIMEOUTS = 2;

/** Calls by `first` until it fails, then by what `next` gives. */
export function createClient(first: EndpointApi, next: NextEndpoint): OpencodeClient {
  return new Failover(first, next).client();
}

/** Subscribing changes nothing, and what is no event stream is no way for a turn, whatever it is. */
const anything = ({ kind }: RequestError): boolean => kind !== 'cancelled';

const MAY_REPEAT: Readonly<Record<Repeat, (error: RequestError) => boolean>> = {
  always: ({ kind }) => WAY_FAILED.has(kind),
  unsent: ({ kind }) => kind === 'unreachable',
  never: () => false,
};

class Failover {
  readonly #next: NextEndpoint;
  #endpoint: EndpointApi;
  /** Aborts when the way in use is left: what streams by it would only fall silent. */
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
          // Not sent by this way; by an earlier one it may have been, and that is what counts.
          const sent = failures.findLast(({ error: { kind } }) => kind !== 'unreachable');
          if (sent !== undefined) throw together(failures, sent.error);
          throw error;
        }
        // Another call has left this way, and with it what was asked by it.
        const wasLeft = error.kind === 'cancelled' && endpoint !== this.#endpoint;
        failures.push({ key: endpoint.key, error });
        const timeouts = failures.filter(({ error: { kind } }) => kind === 'timeout').length;
        if (!(wasLeft || mayRepeat(error)) || timeouts >= MAX_TIMEOUTS) throw together(failures, error);
        if (!(await this.#leave(failures.map(({ key }) => key)))) throw together(failures, error);
      }
    }
  }

  /** Whether the way in use is none of `failed` in the end. Calls that fail together look for it together. */
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

/** What each way said; of the last one, what it means. */
function together(failures: readonly { readonly error: RequestError }[], last: RequestError): RequestError {
  if (failures.length < 2) return last;
  const said = failures.map(({ error }) => error.message).join('; by another way: ');
  return new RequestError(last.kind, said, {
    cause: last,
    ...(last.status === undefined ? {} : { status: last.status }),
  });
}
