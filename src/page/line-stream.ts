import type { ServerResponse } from 'node:http';
import type { Clock } from '../base/clock.ts';
import { PAGE_HEADERS } from './assets.ts';

/** Proxies and NAT drop a connection that is silent for 30 s. */
export const HEARTBEAT_MS = 15_000;

/** An endless answer of JSON lines; empty lines between them are heartbeats. */
export class LineStream {
  readonly #response: ServerResponse;
  readonly #signal: AbortSignal;

  /** `signal` aborts when the caller leaves or is cut off. */
  constructor(response: ServerResponse, clock: Clock, signal: AbortSignal) {
    this.#response = response;
    this.#signal = signal;
    response.writeHead(200, { ...PAGE_HEADERS, 'content-type': 'application/x-ndjson; charset=utf-8' });
    response.flushHeaders();
    void this.#beat(clock);
  }

  /** Resolves when the reader has taken most of it. A sender that waits needs no queue: it sends the newest state next. */
  async send(lines: readonly object[]): Promise<void> {
    if (lines.length === 0 || this.#signal.aborted) return;
    const isTaken = this.#response.write(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    if (!isTaken) await this.#drained();
  }

  end(): void {
    this.#response.end();
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const settle = (): void => {
        this.#response.off('drain', settle).off('close', settle);
        this.#signal.removeEventListener('abort', settle);
        resolve();
      };
      this.#response.once('drain', settle).once('close', settle);
      this.#signal.addEventListener('abort', settle, { once: true });
      if (this.#signal.aborted || this.#response.closed) settle();
    });
  }

  async #beat(clock: Clock): Promise<void> {
    for (;;) {
      await clock.sleep(HEARTBEAT_MS, this.#signal);
      if (this.#signal.aborted || this.#response.writableEnded) return;
      if (!this.#response.writableNeedDrain) this.#response.write('\n');
    }
  }
}
