import { requestJson } from '../../http/exchange.ts';
import type { Connection, Credential } from '../../http/exchange.ts';
import type { Candidate } from '../../model/candidate.ts';
import type { OwnInstance } from '../list/own-instances.ts';

/** A directory's sessions, some 500 bytes each; more than this many nobody has looked through. */
const MAX_SESSIONS = 10_000;
const MAX_BYTES = 16 * 1024 * 1024;
/** An undone turn leaves its whole diff in the session; a directory is at most as long as Linux lets it be. */
const MAX_STRING_BYTES = 4096;
const LIMIT_MS = 5000;
/** Ids remembered for one instance before they are asked again. */
const MAX_REMEMBERED = 10_000;

const MAX_ACTIVE_BYTES = 256 * 1024;

/** Decides what a `read` caller may ask about sessions. */
export class ReadSessions {
  /** A session never moves, so what was found once holds. */
  readonly #known = new WeakMap<OwnInstance['candidate'], Set<string>>();

  /** Whether a session is of an instance's own directory: the database holds those of all the person's projects. */
  async has(
    session: string,
    { candidate, directory }: OwnInstance,
    credential: Credential | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const known = this.#known.get(candidate) ?? new Set<string>();
    if (known.has(session)) return true;
    // Asking for the session itself would already load its directory.
    const answer = await requestJson(
      connectionTo(candidate, credential),
      `/session?directory=${encodeURIComponent(directory)}&limit=${MAX_SESSIONS}`,
      { timeoutMs: LIMIT_MS, maxBytes: MAX_BYTES, maxStringBytes: MAX_STRING_BYTES, signal },
    );
    const ids = Array.isArray(answer) ? answer.flatMap((one) => idOf(one, directory)) : [];
    this.#known.set(candidate, new Set(ids.slice(0, MAX_REMEMBERED)));
    return ids.includes(session);
  }

  /** Whether a session of an OpenCode 2 runs now. */
  async isActive(
    session: string,
    { candidate }: Pick<OwnInstance, 'candidate'>,
    credential: Credential | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const limits = { timeoutMs: LIMIT_MS, maxBytes: MAX_ACTIVE_BYTES, signal };
    const answer = await requestJson(connectionTo(candidate, credential), '/api/session/active', limits);
    const { data } = (answer ?? {}) as { readonly data?: unknown };
    return typeof data === 'object' && data !== null && Object.hasOwn(data, session);
  }
}

function connectionTo({ endpoint }: Candidate, credential: Credential | undefined): Connection {
  return { endpoint, ...(credential !== undefined && { credential }) };
}

function idOf(session: unknown, directory: string): string[] {
  if (typeof session !== 'object' || session === null) return [];
  if (!('id' in session) || typeof session.id !== 'string') return [];
  return 'directory' in session && session.directory === directory ? [session.id] : [];
}
