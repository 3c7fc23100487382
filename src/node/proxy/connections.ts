import type { Socket } from 'node:net';

/**
 * Enough for hundreds of clients with an event stream each, and with two descriptors for each below the usual limit of
 * open files.
 */
export const MAX_CONNECTIONS = 400;

/** Counts the connections, so that idle ones never keep out one that has something to ask. */
export class Connections {
  readonly #max: number;
  /** Requests under way of each, oldest connection first. */
  readonly #open = new Map<Socket, number>();

  constructor(max = MAX_CONNECTIONS) {
    this.#max = max;
  }

  get count(): number {
    return this.#open.size;
  }

  /** When there are too many, the one that has been idle longest goes; when none is idle, the new one. */
  add(socket: Socket): void {
    socket.on('error', () => {});
    if (this.#open.size >= this.#max && !this.#evict()) {
      socket.destroy();
      return;
    }
    this.#open.set(socket, 0);
    socket.once('close', () => this.#open.delete(socket));
  }

  /** A request of this connection is under way until the returned function is called. */
  busy(socket: Socket): () => void {
    this.#change(socket, 1);
    let over = false;
    return () => {
      if (!over) this.#change(socket, -1);
      over = true;
    };
  }

  /** Cuts all of them. */
  destroy(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  #change(socket: Socket, by: number): void {
    const requests = this.#open.get(socket);
    if (requests === undefined) return;
    // Idle from now on, so that the oldest idle one is first.
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
