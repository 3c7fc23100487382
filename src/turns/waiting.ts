import type { OpencodeApi } from '../opencode/api.ts';
import type { ServerEvent } from '../opencode/events.ts';
import { permissionSchema, questionSchema, sessionSchema } from '../opencode/schema.ts';
import type { WaitingRequest } from '../opencode/waiting.ts';

/** Sub-agents run in sessions of their own, a few levels deep at most. */
const MAX_DEPTH = 8;
/** Cached ids; the parents of further sessions are looked up each time. */
const MAX_KNOWN = 1_000;

/** A turn's session and those of its sub-agents, whose requests also stop the turn. */
export class SessionFamily {
  readonly #rootId: string;
  readonly #members: Set<string>;
  readonly #strangers = new Set<string>();

  constructor(rootId: string) {
    this.#rootId = rootId;
    this.#members = new Set([rootId]);
  }

  apply(event: ServerEvent): void {
    if (event.type !== 'session.created') return;
    const info = sessionSchema.safeParse(event.properties['info']);
    if (info.success && info.data.parentID !== undefined && this.#members.has(info.data.parentID)) {
      note(this.#members, info.data.id);
    }
  }

  /** Looks up the parents of a session that started before the event stream. One that cannot be read does not count. */
  async includes(sessionId: string, api: Pick<OpencodeApi, 'session'>): Promise<boolean> {
    const chain: string[] = [];
    for (let id: string | undefined = sessionId; id !== undefined && chain.length < MAX_DEPTH;) {
      if (this.#members.has(id)) {
        for (const member of chain) note(this.#members, member);
        return true;
      }
      if (this.#strangers.has(id)) break;
      chain.push(id);
      id = (await api.session(id).catch(() => undefined))?.parentID;
    }
    for (const stranger of chain) note(this.#strangers, stranger);
    return false;
  }

  /** From what is known, without a request. */
  has(sessionId: string): boolean {
    return this.#members.has(sessionId);
  }

  isSubAgent(sessionId: string): boolean {
    return sessionId !== this.#rootId;
  }
}

function note(known: Set<string>, id: string): void {
  if (known.size < MAX_KNOWN) known.add(id);
}

/** The request that an event announces. */
export function requestIn(event: ServerEvent): WaitingRequest | undefined {
  if (event.type === 'permission.asked') {
    const request = permissionSchema.safeParse(event.properties);
    if (request.success) return { kind: 'permission', request: request.data };
  }
  if (event.type === 'question.asked') {
    const request = questionSchema.safeParse(event.properties);
    if (request.success) return { kind: 'question', request: request.data };
  }
  return undefined;
}

/**
 * Whether a listed request still waits. After an abort opencode (1.18.33) goes on listing it, though its message has ended and an answer
 * has no effect.
 */
export async function stillWaits(api: OpencodeApi, { request: { sessionID, tool } }: WaitingRequest): Promise<boolean> {
  if (tool === undefined) return true;
  try {
    const info = (await api.message(sessionID, tool.messageID))?.info;
    return info?.role === 'assistant' && info.time.completed === undefined && info.error === undefined;
  } catch {
    return true;
  }
}

/** Every request that waits in one directory of the instance. */
export async function listWaiting(api: OpencodeApi, directory: string): Promise<readonly WaitingRequest[]> {
  const [permissions, questions] = await Promise.all([api.permissions(directory), api.questions(directory)]);
  return [
    ...permissions.map((request) => ({ kind: 'permission', request }) as const),
    ...questions.map((request) => ({ kind: 'question', request }) as const),
  ];
}
