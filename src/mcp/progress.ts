import { multiLine, StreamCleaner } from '../base/plain-text.ts';
import type { SendNotification } from './core.ts';

/** Clients that reset their time limit on progress give up after 60 s of silence. */
const HEARTBEAT_MS = 10_000;
/** Text that comes this soon after a notification goes into the next one: at most ten a second. */
const GATHER_MS = 100;
/** For one notification: more than 100 ms of text, and more than clients show. The result has the whole text. */
const MAX_CHARS = 10_000;

/** Sends one progress notification. While its promise is pending, the client has not read it. */
export type Notify = (progress: number, message: string | undefined) => Promise<void> | void;

/** Sends progress under the client's token until the request is over; undefined if the client sent no token. */
export function progressNotifier(
  progressToken: string | number | undefined,
  sendNotification: SendNotification,
  isOver: () => boolean,
): Notify | undefined {
  if (progressToken === undefined) return undefined;
  return async (progress, message) => {
    if (isOver()) return;
    await sendNotification('notifications/progress', {
      progressToken,
      progress,
      ...(message !== undefined && { message }),
    });
  };
}

/**
 * Turns a turn's text into progress notifications: the first at once, then at most ten a second, and one without text after each
 * 10 s of silence. It waits until the client has read one before it sends the next.
 */
export class ProgressReporter {
  readonly #notify: Notify;
  readonly #cleaner = new StreamCleaner();
  #sent = 0;
  #isRead = true;
  #gathered = '';
  #ended = false;
  #gathering: NodeJS.Timeout | undefined;
  #heartbeat: NodeJS.Timeout;

  constructor(notify: Notify) {
    this.#notify = notify;
    this.#heartbeat = setInterval(() => {
      if (this.#isRead) this.#send(undefined);
    }, HEARTBEAT_MS);
  }

  add(text: string): void {
    if (this.#ended) return;
    const clean = this.#cleaner.add(text);
    // Text above the limit would be cut off anyway.
    if (this.#gathered.length <= MAX_CHARS) this.#gathered += clean;
    if (this.#gathering === undefined) this.#flush();
  }

  /** Sends the gathered text and stops. It may reach the client after the result, which has that text too. */
  end(): void {
    this.#ended = true;
    this.#gathered += this.#cleaner.end();
    clearInterval(this.#heartbeat);
    clearTimeout(this.#gathering);
    this.#gathering = undefined;
    if (this.#gathered !== '') this.#send(this.#gathered);
    this.#gathered = '';
  }

  #flush(): void {
    this.#gathering = undefined;
    if (this.#gathered === '' || !this.#isRead) return;
    const text = this.#gathered;
    this.#gathered = '';
    this.#send(text);
    this.#heartbeat.refresh();
    this.#gathering = setTimeout(() => this.#flush(), GATHER_MS);
  }

  #send(message: string | undefined): void {
    this.#sent += 1;
    const reading = this.#notify(this.#sent, message && multiLine(message, MAX_CHARS));
    if (reading === undefined) return;
    this.#isRead = false;
    void reading.then(() => {
      this.#isRead = true;
      if (this.#gathering === undefined && !this.#ended) this.#flush();
    });
  }
}
