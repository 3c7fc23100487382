import type { IncomingMessage } from 'node:http';
import type { Logger, LogLevel } from '../../base/log.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { Role } from '../access/admission.ts';
import { reasonOf } from '../../base/errors.ts';

const MAX_PATH_CHARS = 200;

/** Polling callers remembered. */
const MAX_POLLERS = 1000;

interface Verdict {
  readonly caller: string;
  readonly role?: Role;
}

/** Logs who requested what, and the verdict. Never a body or a query, which may hold a directory or a title. */
export class RequestLog {
  readonly #logger: Logger;
  /** The last verdict on each polling caller, the latest caller last. */
  readonly #lastVerdicts = new Map<string, string>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  admitted(request: IncomingMessage, verdict: Verdict): void {
    this.#log('info', 'admitted', request, verdict);
  }

  refused(request: IncomingMessage, verdict: Verdict, reason: string): void {
    this.#log('warn', 'refused', request, verdict, reason);
  }

  /** A request that repeats endlessly: for the list, which other machines poll, or above the quota. Logged when its verdict changes. */
  polled(request: IncomingMessage, verdict: Verdict, refusal?: string): void {
    const level = refusal === undefined ? 'info' : 'warn';
    const { caller, role } = verdict;
    const outcome = refusal ?? `admitted to ${role}`;
    const isNew = this.#lastVerdicts.get(caller) !== outcome;
    this.#lastVerdicts.delete(caller);
    this.#lastVerdicts.set(caller, outcome);
    const [oldest] = this.#lastVerdicts.keys();
    if (oldest !== undefined && this.#lastVerdicts.size > MAX_POLLERS) this.#lastVerdicts.delete(oldest);
    this.#log(isNew ? level : 'debug', refusal === undefined ? 'admitted' : 'refused', request, verdict, refusal);
  }

  /** An exchange was cut because its caller's right ended. */
  cut(request: IncomingMessage, verdict: Verdict): void {
    this.#log('warn', 'cut', request, verdict, 'the right that it began with has ended');
  }

  failed(request: IncomingMessage, error: unknown): void {
    const reason = reasonOf(error);
    this.#logger.log('warn', 'a request failed', { method: request.method, path: pathOf(request), reason });
  }

  #log(level: LogLevel, what: string, request: IncomingMessage, { caller, role }: Verdict, reason?: string): void {
    this.#logger.log(level, what, { caller, role, method: request.method, path: pathOf(request), reason });
  }
}

function pathOf({ url = '' }: IncomingMessage): string {
  return singleLine(url.split('?', 1)[0] ?? '', MAX_PATH_CHARS);
}
