import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';

import { errorCode, jsonOf, messageOf } from '../../base/errors.ts';
import { createOwnFile } from '../../base/files/own-file.ts';
import type { Clock } from '../../base/clock.ts';
import { removeOldFiles } from '../remove-old-files.ts';
import { addressOf } from '../../model/endpoint-key.ts';
import type { Prompt } from '../../opencode/api.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Connected } from '../runtime.ts';

/** A message that was sent, or about to be, under a request id; without its text. */
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
/** In place of a first entry: the request id was used under another identity of the instance. */
const aliasSchema = z.object({ chain: z.string() });

/** A request id, with the identities and names that its instance may have had. */
export interface RequestKey {
  readonly requestId: string;
  /** Best first, see `requestKey`. */
  readonly identities: readonly string[];
  /** Current and former names, which earlier versions named their files by. */
  readonly names: readonly string[];
  /** If the caller named one: each session has its own request ids. */
  readonly sessionId?: string | undefined;
}

/** What is kept for a request id, and the place of the next entry. */
export interface KeptRequest {
  readonly entry: JournalEntry | undefined;
  readonly chain: string;
  /** Entries found in the chain. */
  readonly count: number;
}

/** Clients repeat a call within minutes, people within days. */
const KEPT_MS = 14 * 86_400_000;

/**
 * Keeps on disk which message each request id stands for, so that a repeated call finds the same turn after a restart too.
 * Each attempt to send adds the next numbered file to a chain, which only one process can create; none is ever removed.
 */
export class RequestJournal {
  readonly #folder: string;
  readonly #clock: Clock;
  #tidied = false;

  /** @param folder created on first use, 0700 */
  constructor(folder: string, clock: Clock) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** @throws {OperationError} it cannot be read, or was used for another text */
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
   * Adds the message that is about to be sent. Undefined if another process has added one meanwhile.
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
      if (errorCode(error) === 'ENOENT') return undefined;
      throw unusable(path, error);
    }
    const entry = z.union([entrySchema, aliasSchema]).safeParse(jsonOf(written));
    if (!entry.success) throw unusable(path, new Error('it is damaged; remove it once you know what became of it'));
    return entry.data;
  }

  /** False if the file exists. */
  #create(path: string, content: object): Promise<boolean> {
    return createOwnFile(path, `${JSON.stringify(content)}\n`);
  }

  #path(chain: string, count: number): string {
    return join(this.#folder, `${chain}.${count}.json`);
  }

  async #tidy(): Promise<void> {
    if (this.#tidied) return;
    this.#tidied = true;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await removeOldFiles(this.#folder, KEPT_MS, this.#clock.now());
  }
}

function chainOf(identity: string, part: string): string {
  return digestOf(`${identity}\0${part}`);
}

/**
 * Identities of an instance that survive a new name: the ids from its registrations or its node service, and its machine with its
 * directory. A machine known only by address counts with its port, since a tunnel's address belongs to another machine.
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

function unusable(path: string, error: unknown): OperationError {
  return new OperationError(({ messageKey }) => `cannot keep ${messageKey} in ${path}: ${messageOf(error)}`);
}
