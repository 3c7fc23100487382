import { multiLine, StreamCleaner } from '../base/plain-text.ts';

/** Clients that wait on progress give up after 60 s of silence. */
const HEARTBEAT_MS = 10_000;
/** Text that comes within this after a notification is gathered into the next one. */
const GATHER_MS = 100;
/** Of one notification: more than is said in 100 ms, and than a client shows. The result has all of it. */
const MAX_CHARS = 10_000;

/** Where its promise is pending, the client has not read what came before. */
export type Notify = (progress: number, message: string | undefined) => Promise<void> | void;

/**
 * Turns a turn's text into progress notifications: the first at once, then at most ten a second, and a sign of life without
 * text every 10 s of silence. While the client does not read, one waits, and the text for the next is gathered.
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
    const fresh = this.#cleaner.add(text);
    // What is over the limit would be cut off all the same.
    if (this.#gathered.length <= MAX_CHARS) this.#gathered += fresh;
    if (this.#gathering === undefined) this.#flush();
  }

  /** Sends what is gathered and stops. What came last may reach the client after the result: it is in the result too. */
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
    this.#gathering = setTimeout(() => {
      this.#flush();
    }, GATHER_MS);
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
