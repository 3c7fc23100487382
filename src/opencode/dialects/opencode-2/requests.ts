import type * as z from 'zod';

import { jsonOf } from '../../../base/errors.ts';
import {
  type Connection,
  type Exchange,
  exchange,
  MAX_BODY_BYTES,
  type RequestInit,
  RequestError,
} from '../../../http/exchange.ts';
import { fittingJson } from '../../fitting.ts';
import { said, wordsOf } from '../../said.ts';
import { dataOf, type Generation } from './wire.ts';

/** A cold directory loads its plugins and MCP servers on the first request that needs them: 2.3 s with the preview. */
const CALL_TIMEOUT_MS = 15_000;
/** For what reads through a project. */
export const SEARCH_TIMEOUT_MS = 30_000;
/** Bytes of one string in an answer that is too large. */
const CUTS = [64 * 1024, 1024];

/** The preview's 500 has no message. */
const COLD =
  "; this preview of OpenCode 2 cannot load the session's directory: it may be gone, or its configuration broken";

/** The requests to one OpenCode 2, with checked answers. They reject with `RequestError`. */
export class Opencode2Requests {
  readonly #connection: Connection;
  readonly #generation: Generation;
  readonly #signal: AbortSignal | undefined;

  constructor(connection: Connection, generation: Generation, signal: AbortSignal | undefined) {
    this.#connection = connection;
    this.#generation = generation;
    this.#signal = signal;
  }

  /** The whole answer, with its long strings cut if it is too large and `cuts` is true. */
  async page<T>(path: string, schema: z.ZodType<T>, cuts: boolean): Promise<T> {
    return this.#read(`GET ${path}`, await this.#get(path, CALL_TIMEOUT_MS, cuts ? undefined : []), schema);
  }

  /** The data of an answer, with its long strings cut if it is too large. */
  async data<T>(path: string, schema: z.ZodType<T>, timeoutMs = CALL_TIMEOUT_MS): Promise<T> {
    return this.#read(`GET ${path}`, await this.#get(path, timeoutMs), dataOf(schema)).data;
  }

  /** As `data`; undefined for a 404. */
  async find<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
    const answer = await this.#get(path, CALL_TIMEOUT_MS);
    return answer.status === 404 ? undefined : this.#read(`GET ${path}`, answer, dataOf(schema)).data;
  }

  /** A file; undefined for a 404. */
  async file(path: string): Promise<Exchange | undefined> {
    const answer = await this.#exchange(path, { anyType: true }, SEARCH_TIMEOUT_MS);
    if (answer.status === 404) return undefined;
    if (answer.status !== 200) throw this.#statusError(`GET ${path}`, answer);
    return answer;
  }

  async post<T>(path: string, body: object, schema: z.ZodType<T>): Promise<T> {
    const answer = await this.#exchange(path, { method: 'POST', body: JSON.stringify(body) });
    return this.#read(`POST ${path}`, answer, dataOf(schema)).data;
  }

  /** False for a 404. */
  async did(method: string, path: string, body?: object): Promise<boolean> {
    const answer = await this.#exchange(path, { method, ...(body && { body: JSON.stringify(body) }) });
    if (answer.status === 404) return false;
    if (answer.status >= 400) throw this.#statusError(`${method} ${path}`, answer);
    return true;
  }

  /** False if the form is gone, or another client settled it. */
  async settled(method: string, path: string, body?: object): Promise<boolean> {
    try {
      return await this.did(method, path, body);
    } catch (error) {
      if (error instanceof RequestError && error.status === 409) return false;
      throw error;
    }
  }

  async #get(
    path: string,
    timeoutMs: number,
    cuts: readonly number[] = CUTS,
    maxStringBytes?: number,
  ): Promise<Exchange> {
    try {
      return await this.#exchange(path, { method: 'GET' }, timeoutMs, maxStringBytes);
    } catch (error) {
      const [next, ...shorter] = cuts;
      if (!isTooLarge(error) || next === undefined) throw error;
      return await this.#get(path, timeoutMs, shorter, next);
    }
  }

  #exchange(path: string, init: RequestInit, timeoutMs = CALL_TIMEOUT_MS, maxStringBytes?: number): Promise<Exchange> {
    const limits = { timeoutMs, maxBytes: MAX_BODY_BYTES, maxStringBytes, signal: this.#signal };
    return exchange(this.#connection, path, init, limits);
  }

  #read<T>(route: string, answer: Exchange, schema: z.ZodType<T>): T {
    if (answer.status !== 200) throw this.#statusError(route, answer);
    return fittingJson(schema, answer.text, labelOf(route));
  }

  #statusError(route: string, { status, text }: Exchange): RequestError {
    const words = wordsOf(jsonOf(text));
    const isPreview = this.#generation === 'opencode-2-preview';
    const isCold = isPreview && status === 500 && words === undefined && route.includes('/api/session/');
    const why = isCold ? COLD : words === undefined ? '' : said(words);
    return new RequestError('status', `${labelOf(route)}: HTTP ${status}${why}`, { status });
  }
}

export function isTooLarge(error: unknown): boolean {
  return error instanceof RequestError && error.kind === 'too-large';
}

/** Without the query. */
function labelOf(route: string): string {
  return route.split('?', 1)[0] ?? route;
}
