import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';

import type { Clock } from '../../src/base/clock.ts';
import { LineStream } from '../../src/page/line-stream.ts';

/** A response that needs `drain` after each write except a heartbeat (`\n`). */
class SlowResponse extends EventEmitter {
  readonly written: string[] = [];
  writableNeedDrain = false;
  readonly writableEnded = false;
  readonly closed = false;

  writeHead(): void {}
  flushHeaders(): void {}

  write(text: string): boolean {
    this.written.push(text);
    this.writableNeedDrain = text !== '\n';
    return !this.writableNeedDrain;
  }

  drain(): void {
    this.writableNeedDrain = false;
    this.emit('drain');
  }
}

/** Lets `work` write to a slow reader. Disposal aborts the signal, and waits for the work. */
export function streamSlowly(clock: Clock, work: (stream: LineStream, signal: AbortSignal) => Promise<void>) {
  const response = new SlowResponse();
  const abortController = new AbortController();
  const { signal } = abortController;
  const finished = work(new LineStream(response as unknown as ServerResponse, clock, signal), signal);
  return {
    written: response.written,
    drain: () => response.drain(),
    async [Symbol.asyncDispose]() {
      abortController.abort();
      await finished;
    },
  };
}
