import { randomBytes } from 'node:crypto';

export type Fields = Readonly<Record<string, unknown>>;
export type Delivery = 'steer' | 'queue';
export type Outcome = 'succeeded' | 'failed' | 'interrupted';

export interface ModelRef {
  readonly id: string;
  readonly providerID: string;
}

export interface SessionInfo {
  readonly id: string;
  readonly parentID?: string;
  readonly fork?: Fields;
  readonly projectID: string;
  agent?: string | undefined;
  model?: ModelRef | undefined;
  cost: number;
  tokens: typeof NO_TOKENS;
  outcome?: Outcome;
  readonly time: { readonly created: number; updated: number; idle?: number; archived?: number };
  title?: string | undefined;
  readonly location: { readonly directory: string };
}

/** A message as the routes return it. */
export interface Message {
  readonly id: string;
  readonly type: string;
  readonly time: { readonly created: number; streamed?: number; completed?: number };
  content?: Content[];
  [key: string]: unknown;
}

export type Content =
  | { readonly type: 'text' | 'reasoning'; text: string }
  | { readonly type: 'tool'; readonly id: string; readonly name: string; state: Fields; time: Record<string, number> };

export interface InboxItem {
  readonly id: string;
  readonly sessionID: string;
  readonly time: { readonly created: number };
  readonly type: 'user' | 'compaction';
  /** Contains `text` and other fields for a user message; empty for a compaction. */
  readonly payload: { readonly text?: string; readonly [key: string]: unknown };
  delivery: Delivery;
}

export interface PermissionRequest {
  readonly id: string;
  readonly sessionID: string;
  readonly action: string;
  readonly resources: readonly string[];
  readonly save?: readonly string[];
  readonly metadata?: Fields;
  readonly source?: Fields;
}

export type FormValue = string | number | boolean | readonly string[];

export interface FormField {
  readonly key: string;
  readonly type: 'string' | 'number' | 'integer' | 'boolean' | 'multiselect' | 'external';
  readonly title?: string;
  readonly description?: string;
  readonly required?: boolean;
  readonly when?: readonly { readonly key: string; readonly op: 'eq' | 'neq'; readonly value: FormValue }[];
  readonly options?: readonly { readonly value: string; readonly label: string; readonly description?: string }[];
  readonly custom?: boolean;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly pattern?: string;
  readonly url?: string;
}

export interface Form {
  readonly id: string;
  readonly sessionID: string;
  readonly title: string;
  readonly metadata?: Fields;
  readonly fields: readonly FormField[];
}

export interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly created?: number;
  readonly durable?: { readonly aggregateID: string; readonly seq: number; readonly version: number };
  readonly location?: { readonly directory: string };
  readonly data: Fields;
}

export interface StoredSession {
  readonly info: SessionInfo;
  /** Oldest first. */
  readonly messages: Message[];
  /** Items that are admitted and not delivered, oldest first. */
  readonly inbox: InboxItem[];
  /** Durable events, oldest first: their index is their `seq`. */
  readonly log: ServerEvent[];
  diff: readonly Fields[];
  /** True from the beginning to the end of an execution. If no process runs it, the next start of the service resumes it. */
  executing: boolean;
}

/** A request that a turn waits for. */
export interface Pending<Request, Settlement> {
  readonly request: Request;
  readonly settle: (settlement: Settlement) => void;
}

export interface PermissionReply {
  readonly decision: 'once' | 'always' | 'reject';
  readonly message?: string;
}

export type FormSettlement =
  | { readonly status: 'answered'; readonly answer: Readonly<Record<string, FormValue>> }
  | { readonly status: 'cancelled'; readonly message: string | undefined };

export const NO_TOKENS = { input: 0, output: 0, reasoning: 0, cache: { read: 0, write: 0 } } as const;

/** The data that survives a kill. */
export class Store {
  readonly sessions = new Map<string, StoredSession>();
  /** The first admitted item of every id; later admissions of the id are ignored. */
  readonly admissions = new Map<string, InboxItem>();
  #lastTime = 0;
  #lastId = 0;

  /** Returns milliseconds since the epoch, never the same number twice, so that sorting by time has one order. */
  now(): number {
    this.#lastTime = Math.max(this.#lastTime + 1, Date.now());
    return this.#lastTime;
  }

  /** Returns an id such as `ses_…` or `msg_…`. Ids ascend. */
  id(prefix: string): string {
    this.#lastId += 1;
    const count = this.#lastId.toString(16).padStart(12, '0');
    return `${prefix}_${count}${randomBytes(7).toString('hex')}`;
  }

  /** Returns the sessions in the default order of lists. */
  newestFirst(): StoredSession[] {
    return [...this.sessions.values()].sort((a, b) => b.info.time.updated - a.info.time.updated);
  }
}

/** Requests to the user, which end with the process. */
export class Waiting {
  readonly permissions = new Map<string, Pending<PermissionRequest, PermissionReply>>();
  readonly forms = new Map<string, Pending<Form, FormSettlement>>();
  /** The sessions of settled forms, by the id of the form. */
  readonly settledForms = new Map<string, string>();

  /** Removes the requests of an interrupted session, without an event. */
  withdraw(sessionID: string): void {
    for (const table of [this.permissions, this.forms])
      for (const [id, { request }] of table) if (request.sessionID === sessionID) table.delete(id);
  }
}
