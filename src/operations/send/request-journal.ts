import { createHash, randomUUID } from 'node:crypto';
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

import type { Clock } from '../../base/clock.ts';
import { removeOldFiles } from '../remove-old-files.ts';
import { addressOf } from '../../model/endpoint-key.ts';
import type { Prompt } from '../../opencode/api.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Connected } from '../runtime.ts';

/** A message that was sent, or was about to be, for one request id. Its text is not kept. */
export interface JournalEntry {
  readonly sessionId: string;
  readonly messageId: string;
  readonly partId: string;
  /** SHA-256 of the text. */
  readonly digest: string;
}

const entrySchema = z.object({
  sessionId: z.string(),
  messageId: z.string(),
  partId: z.string(),
  digest: z.string(),
});
/** In the place of a first entry: the instance was known by something else when the request id was used. */
const aliasSchema = z.object({ chain: z.string() });

/** One request id, and by what the instance that it was used for may have been known. */
export interface RequestKey {
  readonly requestId: string;
  /** Best first, see `requestKey`. */
  readonly identities: readonly string[];
  /** What earlier versions named their files by: its name and those it had. */
  readonly names: readonly string[];
  /** Where the caller named one: other sessions have request ids of their own. */
  readonly sessionId?: string | undefined;
}

/** What is known of a request id, and where what is done next is kept. */
export interface KeptRequest {
  readonly entry: JournalEntry | undefined;
  readonly chain: string;
  /** Entries in the chain that were seen. */
  readonly count: number;
}

/** A client that repeats a call does so within minutes; people who come back do so within days. */
const KEPT_MS = 14 * 86_400_000;

/**
 * Which message each request id stands for, on disk, so that a repeated call gives the same turn across a restart of this server too.
 * Each attempt to send adds the next numbered entry to a chain of files, which only one process can make; nothing is ever taken back.
 */
export class RequestJournal {
  readonly #folder: string;
  readonly #clock: Clock;
  #tidied = false;

  /** @param folder made when it is first needed, 0700 */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** @throws {OperationError} it cannot be read, or stands for another text */
  async find(key: RequestKey, text: string): Promise<KeptRequest> {
    const found = await this.#find(key);
    if (found.entry !== undefined && found.entry.digest !== digestOf(text)) {
      throw new OperationError(
        ({ messageKey }) =>
          `${messageKey} ${JSON.stringify(key.requestId)} was used for another message to ${quoteName(key.names[0] ?? '')}; give each message its own.`,
      );
    }
    return found;
  }

  /**
   * Keeps what is about to be sent, as what follows `found`. Undefined where another process has done so in the meantime.
   * @throws {OperationError} it cannot be kept
   */
  async claim(
    { requestId, identities }: RequestKey,
    { chain, count }: KeptRequest,
    { sessionId, messageId, partId, text }: Prompt,
  ): Promise<KeptRequest | undefined> {
    const entry: JournalEntry = { sessionId, messageId, partId, digest: digestOf(text) };
    const path = this.#path(chain, count);
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      await this.#tidy();
      if (!(await this.#create(path, entry))) return undefined;
      for (const identity of identities) await this.#create(this.#path(chainOf(identity, requestId), 0), { chain });
      return { entry, chain, count: count + 1 };
    } catch (error) {
      throw unusable(path, error);
    }
  }

  async #find({ requestId, identities, names, sessionId }: RequestKey): Promise<KeptRequest> {
    const chains = identities.map((identity) => chainOf(identity, requestId));
    for (const first of chains) {
      const head = await this.#read(this.#path(first, 0));
      if (head === undefined) continue;
      const found = await this.#last('chain' in head ? head.chain : first);
      if (sessionId === undefined || found.entry?.sessionId === sessionId) return found;
      return await this.#last(chainOf(found.chain, sessionId));
    }
    const [chain = ''] = chains;
    for (const name of names) {
      const entry = await this.#read(join(this.#folder, `${digestOf(`${name}\0${requestId}`)}.json`));
      if (entry !== undefined && !('chain' in entry)) return { entry, chain, count: 0 };
    }
    return { entry: undefined, chain, count: 0 };
  }

  async #last(chain: string): Promise<KeptRequest> {
    let entry: JournalEntry | undefined;
    for (let count = 0; ; count += 1) {
      const next = await this.#read(this.#path(chain, count));
      if (next === undefined || 'chain' in next) return { entry, chain, count };
      entry = next;
    }
  }

  async #read(path: string): Promise<JournalEntry | z.infer<typeof aliasSchema> | undefined> {
    let written: string;
    try {
      written = await readFile(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw unusable(path, error);
    }
    const entry = z.union([entrySchema, aliasSchema]).safeParse(jsonOf(written));
    if (!entry.success) throw unusable(path, new Error('it is damaged; remove it once you know what became of it'));
    return entry.data;
  }

  /** Whole or not at all; false where there is one. */
  async #create(path: string, content: object): Promise<boolean> {
    const temporary = join(this.#folder, `.${randomUUID()}.tmp`);
    try {
      await writeFile(temporary, `${JSON.stringify(content)}\n`, { mode: 0o600 });
      return await linked(temporary, path);
    } finally {
      await rm(temporary, { force: true }).catch(() => {});
    }
  }

  #path(chain: string, count: number): string {
    return join(this.#folder, `${chain}.${count}.json`);
  }

  /** Once for each process. */
  async #tidy(): Promise<void> {
    if (this.#tidied) return;
    this.#tidied = true;
    await removeOldFiles(this.#folder, KEPT_MS, this.#clock.now());
  }
}

/** Unlike a rename it never takes the place of another; false where there is one. */
async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function chainOf(identity: string, part: string): string {
  return digestOf(`${identity}\0${part}`);
}

/**
 * By what an instance is known, whatever it is called: the ids that its registrations or its node service give it, else its machine
 * and directory. A machine that only has an address is that address with its port: a tunnel's is none of the machine's own.
 */
export function requestKey(
  { instance: { server, name, aliases = [] }, directory }: Pick<Connected, 'instance' | 'directory'>,
  requestId: string,
  sessionId: string | undefined,
): RequestKey {
  const candidates = server.endpoints.map(({ candidate }) => candidate);
  const ids = candidates.flatMap(({ claims: { id } }) => (id === undefined ? [] : [`id ${id}`]));
  const places = candidates.map(({ claims: { hostname }, endpoint }) => {
    const { host, port } = addressOf(endpoint.url);
    return `at ${hostname?.split('.', 1)[0]?.toLowerCase() ?? `${host}:${port}`}`;
  });
  const identities = [...new Set([...ids.toSorted(), ...places.toSorted()])].map((one) => `${one}\0${directory}`);
  return { requestId, identities, names: [name, ...aliases], sessionId };
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function unusable(path: string, error: unknown): OperationError {
  const reason = error instanceof Error ? error.message : String(error);
  return new OperationError(({ messageKey }) => `cannot keep ${messageKey} in ${path}: ${reason}`);
}
