import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { AskPerson, Runtime } from '../operations/runtime.ts';
import type { ClientLog } from './features/client-log.ts';
import type { FleetNews } from './features/fleet-news.ts';
import type { Notify } from './progress.ts';
import type { ToolCalls } from './tool-calls.ts';
import type { Params } from './wire.ts';

/** One request as its era hands it on. */
export interface McpRequest {
  readonly signal: AbortSignal;
  /** Until when it must be answered, by the monotonic clock. */
  readonly deadlineMs: number;
  readonly client: { readonly name: string; readonly version: string } | undefined;
  /** Absent where the client wants no progress. */
  readonly notify?: Notify | undefined;
  /** Absent where the client cannot ask the person, or nothing that this server offers needs them. */
  readonly askPerson?: AskPerson | undefined;
}

/** What a method of the protocol does, whichever era the request is of. @throws {RpcError} */
export type Method = (params: Params, request: McpRequest) => Promise<object>;

/** What both eras serve. */
export interface Core {
  readonly version: string;
  readonly instructions: string;
  readonly stateDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly sendTimeoutMs: number;
  /** Not with `--read-only`: then the person is not asked either. */
  readonly mayChange: boolean;
  readonly methods: ReadonlyMap<string, Method>;
  readonly tools: ToolCalls;
  readonly log: ClientLog;
  /** Listeners for changes of the fleet. */
  readonly news: Set<FleetNews>;
  /** Begins discovery where it has not begun. */
  start(): void;
  runtime(): Promise<Runtime>;
}
