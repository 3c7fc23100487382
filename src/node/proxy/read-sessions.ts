import { requestJson } from '../../http/exchange.ts';
import type { Connection, Credential } from '../../http/exchange.ts';
import type { Candidate } from '../../model/candidate.ts';
import type { OwnInstance } from '../list/own-instances.ts';

/** Sessions listed for one directory, some 500 bytes each. */
const MAX_SESSIONS = 10_000;
const MAX_BYTES = 16 * 1024 * 1024;
/** Longer strings are cut, such as the diff of a reverted turn. A directory fits: PATH_MAX of Linux. */
const MAX_STRING_BYTES = 4096;
const LIMIT_MS = 5000;
/** Session ids remembered per instance. */
const MAX_REMEMBERED = 10_000;

const MAX_ACTIVE_BYTES = 256 * 1024;

/** Decides which sessions a `read` caller may ask for. */
export class ReadSessions {
  /** A session never moves to another directory, so a match stays valid. */
  readonly #known = new WeakMap<OwnInstance['candidate'], Set<string>>();

  /** Whether a session belongs to the instance's own directory; the database holds those of all the user's projects. */
  async has(
    session: string,
    { candidate, directory }: OwnInstance,
    credential: Credential | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const known = this.#known.get(candidate) ?? new Set<string>();
    if (known.has(session)) return true;
    // Requesting the session itself would load its directory.
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
