import type { Socket } from 'node:net';

/** Enough for hundreds of clients with an event stream each; at two descriptors each it stays below the usual limit of 1,024. */
export const MAX_CONNECTIONS = 400;

/** Bounds the connections; idle ones make room for new ones. */
export class Connections {
  readonly #max: number;
  /** Requests in flight per connection, the one that changed least recently first. */
  readonly #open = new Map<Socket, number>();

  constructor(max = MAX_CONNECTIONS) {
    this.#max = max;
  }

  get count(): number {
    return this.#open.size;
  }

  /** Beyond the maximum, closes the longest idle connection, or the new one if none is idle. */
  add(socket: Socket): void {
    socket.on('error', () => {});
    if (this.#open.size >= this.#max && !this.#evict()) {
      socket.destroy();
      return;
    }
    this.#open.set(socket, 0);
    socket.once('close', () => this.#open.delete(socket));
  }

  /** Counts a request as in flight until the returned function is called. */
  busy(socket: Socket): () => void {
    this.#change(socket, 1);
    let over = false;
    return () => {
      if (!over) this.#change(socket, -1);
      over = true;
    };
  }

  destroy(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  #change(socket: Socket, by: number): void {
    const requests = this.#open.get(socket);
    if (requests === undefined) return;
    // To the end: the first idle one is then the longest idle.
    this.#open.delete(socket);
    this.#open.set(socket, requests + by);
  }

  #evict(): boolean {
    for (const [socket, requests] of this.#open) {
      if (requests > 0) continue;
      this.#open.delete(socket);
      socket.destroy();
      return true;
    }
    return false;
  }
}
