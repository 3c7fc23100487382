import type { Clock } from '../../base/clock.ts';
import { quoted } from '../../base/plain-text.ts';
import { anotherCommand, keepLast } from './ssh-failures.ts';
import { SshProcess } from './ssh-process.ts';

export interface RelayConnectionOptions {
  /** Undefined: a shell on this machine. */
  readonly sshCommand: readonly string[] | undefined;
  readonly localPort: number;
  readonly interactive: boolean;
  /** The header that `remote-program.ts` describes, without the tunnel's port. */
  readonly header: readonly string[];
  /** The registration line for the port and name that the relay gave; undefined while there is nothing to register. */
  readonly registration: (port: number, name: string) => string | undefined;
  readonly clock: Clock;
  readonly onMessage?: ((line: string) => void) | undefined;
  /** Called after the login: from then on ssh asks nothing. */
  readonly onLogin?: (() => void) | undefined;
  readonly onPrinted?: (line: string) => void;
}

/** A connection that asks nothing and takes longer hangs somewhere; the next attempt may not. */
const BATCH_LIMIT_MS = 60_000;
/** sshd drops a client that has not logged in after 120 s, so a person may take that long to answer. */
const INTERACTIVE_LIMIT_MS = 150_000;
/** The relay removes a registration in some 20 ms and a round trip; all of `close` has 800. */
const RELEASE_MS = 400;
/** ssh prints the tunnel's port before the session sends anything, but into another pipe. */
const PORT_LATE_MS = 2_000;
const MAX_ERROR_CHARS = 500;
const GREETING = 'opencode-connected 1';
const CANCELLED = 'the attempt was cancelled';

/** The relay's sshd opened the tunnel to other machines. Another attempt would only open it again. */
export class RelayRefusedError extends Error {
  override readonly name = 'RelayRefusedError';
}

/** A connection to the relay, and the registration that it holds there. */
export class RelayConnection {
  /** The tunnel's port on the relay. */
  port = 0;
  /** The name that the relay gave, which may differ from the wanted one. */
  name = '';
  /** The registry directory that the relay took, if it differs from the wanted one. */
  directory: string | undefined;
  replies = 0;
  /** Whether the relay cannot see if the tunnel is open to other machines. */
  isUnseen = false;
  /** Resolves with the reason when the connection is lost or closed, and ssh has ended. Never rejects. */
  readonly lost: Promise<string>;
  /** Rejects with the reason if the connection is lost before. */
  readonly #established: Promise<void>;
  readonly #options: RelayConnectionOptions;
  readonly #ssh: SshProcess;
  readonly #over = new AbortController();
  #greeted = false;
  /** The last lines printed before our program, or instead of it. */
  readonly #printed: string[] = [];
  #began = false;
  #isRefused = false;
  #onEstablished: () => void = () => {};
  /** A better reason for the end than how ssh ended, if there is one. */
  #reason: string | undefined;

  /**
   * Connects, takes a name and registers, if there is something to register. Rejects with the reason, safe to show, once ssh has
   * ended; also soon after `signal` aborts.
   */
  static async open(options: RelayConnectionOptions, signal: AbortSignal): Promise<RelayConnection> {
    const connection = new RelayConnection(options);
    const limitMs = options.interactive ? INTERACTIVE_LIMIT_MS : BATCH_LIMIT_MS;
    const settled = new AbortController();
    const onAbort = (): void => void connection.abandon(CANCELLED);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    void options.clock.sleep(limitMs, settled.signal).then(() => {
      if (!settled.signal.aborted) void connection.abandon(connection.#lateness(limitMs));
    });
    try {
      await connection.#established;
      return connection;
    } finally {
      settled.abort();
      signal.removeEventListener('abort', onAbort);
    }
  }

  private constructor(options: RelayConnectionOptions) {
    this.#options = options;
    const { sshCommand: command, localPort, interactive, onMessage } = options;
    this.#ssh = new SshProcess({
      command,
      localPort,
      interactive,
      onMessage,
      onLine: (line) => this.#take(line),
      onPort: (port) => {
        this.port = port;
        options.onLogin?.();
        this.#begin();
      },
    });
    this.lost = this.#ssh.ended.then(async (reason) => {
      // Other members of its group may be left.
      await this.#ssh.end(0);
      this.#over.abort();
      return this.#explained(this.#reason ?? reason);
    });
    this.#established = new Promise((resolve, reject) => {
      this.#onEstablished = resolve;
      void this.lost.then((reason) => reject(this.#isRefused ? new RelayRefusedError(reason) : new Error(reason)));
    });
  }

  /** The pid of ssh, or of the shell that replaces it. */
  get pid(): number | undefined {
    return this.#ssh.pid;
  }

  heartbeat(): void {
    this.#ssh.send('');
  }

  /** Sends the current registration; false if there is none. */
  register(): boolean {
    const line = this.#options.registration(this.port, this.name);
    if (line !== undefined) this.#ssh.send(line);
    return line !== undefined;
  }

  /** Withdraws the registration and ends ssh, within about 750 ms. */
  async close(): Promise<void> {
    this.#reason ??= 'closed';
    await this.#ssh.end(RELEASE_MS);
  }

  /** Ends the ssh of a dead connection at once. `lost` then gives `reason`. */
  async abandon(reason: string): Promise<void> {
    this.#reason ??= reason;
    await this.#ssh.end(0);
  }

  get #place(): string {
    return this.#options.sshCommand === undefined ? 'this machine' : 'the relay';
  }

  /** A forced command's own output explains more than how it ended. */
  #explained(reason: string): string {
    const isLoggedIn = this.port !== 0 || this.#printed.length > 0;
    if (this.#greeted || !isLoggedIn || reason === CANCELLED || this.#options.sshCommand === undefined) return reason;
    return anotherCommand(this.#printed, reason);
  }

  /** Why there is no connection after `limitMs`, by what happened last. */
  #lateness(limitMs: number): string {
    const time = `within ${limitMs / 1000} s`;
    if (this.#options.sshCommand === undefined)
      return `the shell did not register anything ${time}; see whether the registry directory hangs`;
    if (!this.#greeted && this.port === 0)
      return `no connection to the relay ${time}; try the command of RELAY_SSH_CMD by hand`;
    if (!this.#greeted) return `there was no answer ${time}`;
    return `the relay did not take the registration ${time}; see whether its registry directory hangs`;
  }

  #take(line: string): void {
    // Login scripts may print anything before it, including an unfinished line such as the terminal's title.
    if (line.endsWith(GREETING)) {
      this.#greeted = true;
      this.#options.onLogin?.();
      this.#begin();
      if (this.port === 0) void this.#missPort();
      return;
    }
    if (!this.#greeted) {
      keepLast(this.#printed, line);
      this.#options.onPrinted?.(line);
      return;
    }
    const space = line.indexOf(' ');
    const word = space < 0 ? line : line.slice(0, space);
    this.#takeAnswer(word, line.slice(word.length + 1));
  }

  #takeAnswer(word: string, value: string): void {
    switch (word) {
      case 'beat':
        this.replies += 1;
        return;
      case 'unseen':
        this.isUnseen = true;
        return;
      case 'directory':
        this.directory = value;
        return;
      case 'claimed':
        this.name = value;
        if (!this.register()) this.#onEstablished();
        return;
      case 'registered':
        this.#onEstablished();
        return;
      case 'released':
        this.#ssh.release();
        return;
      case 'error':
      case 'refused':
        this.#reason ??= `${this.#place} says ${quoted(value, MAX_ERROR_CHARS)}`;
        this.#isRefused = word === 'refused';
        void this.#ssh.end(this.#isRefused ? 0 : RELEASE_MS);
    }
  }

  /** Sends the header when the program runs and the tunnel's port is known: the program first checks where that listens. */
  #begin(): void {
    if (this.#began || !this.#greeted || this.port === 0) return;
    this.#began = true;
    const { sshCommand, header } = this.#options;
    // Not before the greeting: programs that run ahead of ours (gcloud, a login script) could read and print it.
    for (const line of [...(sshCommand === undefined ? [] : [`tunnel ${this.port}`]), ...header]) this.#ssh.send(line);
  }

  /** ssh continues if a port forward fails, because the user's own forwards may fail. So a missing tunnel must be noticed here. */
  async #missPort(): Promise<void> {
    await this.#options.clock.sleep(PORT_LATE_MS, this.#over.signal);
    if (this.port !== 0 || this.#over.signal.aborted) return;
    const said = this.#ssh.lastWords;
    void this.abandon(
      said === ''
        ? 'ssh did not say which port the relay gave to the tunnel; remove -q and LogLevel from the command of RELAY_SSH_CMD'
        : `the relay gave no port to the tunnel: ssh says ${said}; see AllowTcpForwarding and PermitListen in its sshd_config, and restrict and permitlisten in its authorized_keys`,
    );
  }
}
