import { EventEmitter } from 'node:events';

/** An answer whose reader takes nothing until `drain`. */
export class SlowResponse extends EventEmitter {
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
