import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { errorCode } from '../../base/errors.ts';
import { createOwnFile } from '../../base/files/own-file.ts';
import { isObject } from '../wire.ts';

/** What the client gets with a question and sends back with the answer. */
export interface AskedState {
  /** Digest of the tool and its arguments. */
  readonly call: string;
  /** Digest of the form and of the request that it is about. */
  readonly question: string;
  readonly askedAtMs: number;
  /** Finds what the call has sent. */
  readonly requestId: string;
}

const KEY_BYTES = 32;

/**
 * Signs the state that comes back with a person's answer, because it decides an approval: only a reader of the key can make or change
 * one. The key is in a file of the person's, so that it is valid in the next process too.
 */
export class StateSealer {
  readonly #key: Buffer;

  constructor(key: Buffer) {
    this.#key = key;
  }

  /** @throws the key can be neither read nor saved */
  static async open(folder: string): Promise<StateSealer> {
    const path = join(folder, 'question.key');
    return new StateSealer((await readKey(path)) ?? (await makeKey(path)));
  }

  seal(state: AskedState): string {
    const text = Buffer.from(JSON.stringify(state)).toString('base64url');
    return `${text}.${this.#mark(text).toString('base64url')}`;
  }

  /** Undefined if it was not sealed with this key. */
  open(sealed: string): AskedState | undefined {
    const [text = '', mark = ''] = sealed.split('.', 2);
    const [given, expected] = [Buffer.from(mark, 'base64url'), this.#mark(text)];
    // Several texts decode to the same bytes; only ours counts.
    if (`${text}.${expected.toString('base64url')}` !== sealed || !timingSafeEqual(given, expected)) return undefined;
    const state: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
    return isObject(state) ? (state as unknown as AskedState) : undefined;
  }

  #mark(text: string): Buffer {
    return createHmac('sha256', this.#key).update(text).digest();
  }
}

/** Does not depend on the order of keys. */
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
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** If another process was first, returns that one's key. */
async function makeKey(path: string): Promise<Buffer> {
  await createOwnFile(path, randomBytes(KEY_BYTES));
  const key = await readKey(path);
  if (key === undefined) throw new Error(`cannot keep ${path}`);
  return key;
}
