import type { OpencodeApi } from '../opencode/api.ts';
import type { EventStream } from '../opencode/events.ts';
import { RequestError } from '../opencode/transport.ts';

/** Finds the process of a turn by another way; undefined where there is none now. Never rejects. */
export type Reroute = () => Promise<OpencodeApi | undefined>;

/** How a turn reaches its process. Another way takes over when this one breaks; it is for following only, see `deliver`. */
export class Route {
  #api: OpencodeApi;
  readonly #reroute: Reroute | undefined;

  constructor(api: OpencodeApi, reroute: Reroute | undefined) {
    this.#api = api;
    this.#reroute = reroute;
  }

  /** The way that is in use. */
  get api(): OpencodeApi {
    return this.#api;
  }

  /** The events by this way, or by another where this one leads nowhere any more. Rejects with `RequestError`. */
  async events(directory: string, isFirst: boolean): Promise<EventStream> {
    try {
      return await this.#api.events(directory);
    } catch (error) {
      if (isFirst || !(error instanceof RequestError)) throw error;
      const other = await this.#reroute?.();
      if (other === undefined) throw error;
      const stream = await other.events(directory);
      this.#api = other;
      return stream;
    }
  }
}
