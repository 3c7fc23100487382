import { createHash, createHmac, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { isObject } from '../wire.ts';

/** What a question that a client carries is bound to. */
export interface AskedState {
  /** The tool and its arguments. */
  readonly call: string;
  /** What it asks, of which request, in which words. */
  readonly question: string;
  readonly askedAtMs: number;
  /** The call's own: what it has sent is found by it. */
  readonly requestId: string;
}

const KEY_BYTES = 32;

/**
 * Seals what comes back with an answer of the person, since it decides an approval: nobody can make or change one who cannot read
 * the key, which lies in a file of the person's own and so holds for the next process too.
 */
export class StateSealer {
  readonly #key: Buffer;

  constructor(key: Buffer) {
    this.#key = key;
  }

  /** @throws the key can neither be read nor kept */
  static async open(folder: string): Promise<StateSealer> {
    const path = join(folder, 'question.key');
    return new StateSealer((await readKey(path)) ?? (await makeKey(folder, path)));
  }

  seal(state: AskedState): string {
    const text = Buffer.from(JSON.stringify(state)).toString('base64url');
    return `${text}.${this.#mark(text).toString('base64url')}`;
  }

  /** Undefined where it is none of ours. */
  open(sealed: string): AskedState | undefined {
    const [text = '', mark = ''] = sealed.split('.', 2);
    const [given, expected] = [Buffer.from(mark, 'base64url'), this.#mark(text)];
    // What decodes to the same bytes may be written in several ways.
    if (`${text}.${expected.toString('base64url')}` !== sealed || !timingSafeEqual(given, expected)) return undefined;
    const state: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
    return isObject(state) ? (state as unknown as AskedState) : undefined;
  }

  #mark(text: string): Buffer {
    return createHmac('sha256', this.#key).update(text).digest();
  }
}

/** The same for equal values, in whichever order their keys stand. */
export function digestOf(value: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify(sorted(value)))
    .digest('base64url');
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  const entries = Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(entries.map(([key, one]) => [key, sorted(one)]));
}

async function readKey(path: string): Promise<Buffer | undefined> {
  try {
    const key = await readFile(path);
    if (key.length === KEY_BYTES) return key;
    throw new Error(`${path} is damaged; remove it`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whole or not at all, and the one of the first process that makes it. */
async function makeKey(folder: string, path: string): Promise<Buffer> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    await writeFile(temporary, randomBytes(KEY_BYTES), { mode: 0o600 });
    await link(temporary, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(temporary, { force: true });
  }
  const key = await readKey(path);
  if (key === undefined) throw new Error(`${path} cannot be kept`);
  return key;
}
