import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { AskPerson, Runtime } from '../operations/runtime.ts';
import type { ClientLog } from './features/client-log.ts';
import type { FleetNews } from './features/fleet-news.ts';
import type { Notify } from './progress.ts';
import type { ToolCalls } from './tool-calls.ts';
import type { OwnMessage, Params } from './wire.ts';

/** A request of either era. */
export interface McpRequest {
  readonly signal: AbortSignal;
  /** When it must be answered, on the monotonic clock. */
  readonly deadlineMs: number;
  readonly client: { readonly name: string; readonly version: string } | undefined;
  /** Undefined if the client wants no progress. */
  readonly notify?: Notify | undefined;
  /** Undefined if the client cannot ask the person, or the server is read-only. */
  readonly askPerson?: AskPerson | undefined;
}

/** Handles one method of the protocol, for both eras. @throws {RpcError} */
export type Method = (params: Params, request: McpRequest) => Promise<object>;

/** Sends a notification. Resolves when the client has room for the next one; never rejects. */
export type SendNotification = (method: string, params: Params) => Promise<void>;

/** Both eras declare these. */
export const CAPABILITIES = {
  tools: {},
  resources: { subscribe: true, listChanged: true },
  prompts: {},
  completions: {},
  logging: {},
} as const;

/** What both eras share. */
export interface Core {
  readonly info: { readonly name: string; readonly version: string };
  readonly instructions: string;
  readonly stateDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly sendTimeoutMs: number;
  /** False with `--read-only`; the person is never asked then. */
  readonly mayChange: boolean;
  readonly methods: ReadonlyMap<string, Method>;
  readonly tools: ToolCalls;
  readonly log: ClientLog;
  /** Notified of each change of the fleet. */
  readonly news: Set<FleetNews>;
  /** Resolves when the client has room for the next message; never rejects. */
  send(message: OwnMessage): Promise<void>;
  readonly sendNotification: SendNotification;
  /** Starts discovery if it has not started. */
  start(): void;
  /** Starts discovery if it has not started. */
  runtime(): Promise<Runtime>;
}
