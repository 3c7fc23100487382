import type { Clock } from '../../base/clock.ts';
import { quoted } from '../../base/plain-text.ts';
import { anotherCommand, keepLast, startSsh, type SshProcess } from './ssh-process.ts';

export interface RelayConnectionOptions {
  /** Undefined: a shell of this machine. */
  readonly sshCommand: readonly string[] | undefined;
  readonly localPort: number;
  readonly interactive: boolean;
  /** The lines before the first registration, as `remote-program.ts` has them. */
  readonly header: readonly string[];
  /** The registration's line, for what the relay gave; undefined as long as there is nothing to register. */
  readonly registration: (port: number, name: string) => string | undefined;
  readonly clock: Clock;
  readonly onMessage?: (line: string) => void;
  /** The login is over: ssh asks nothing from now on. */
  readonly onLogin?: () => void;
  /** Each line that the relay prints before our program runs. */
  readonly onPrinted?: (line: string) => void;
}

/** An open connection with its registration on the relay. */
export interface RelayConnection {
  /** The relay's end of the tunnel. */
  readonly port: number;
  /** The name that the relay gave, which may be another than was wanted. */
  readonly name: string;
  /** The registry directory that was taken, if another than was given. */
  readonly directory: string | undefined;
  /** Of ssh, or of the shell that takes its place. */
  readonly pid: number | undefined;
  /** The relay cannot see whether its end of the tunnel is open to other machines. */
  readonly isUnseen: boolean;
  /** Answers to heartbeats so far. */
  readonly replies: number;
  /** Resolves with the reason once it is lost or closed, and ssh has ended. Never rejects. */
  readonly lost: Promise<string>;
  heartbeat(): void;
  /** Sends the registration as it is now. */
  register(): void;
  /** Takes the registration back and ends ssh, within about 750 ms. */
  close(): Promise<void>;
  /** For a dead connection: ends ssh without a word. `lost` then gives `reason`. */
  abandon(reason: string): Promise<void>;
}

/** A batch connection that is not up by now hangs somewhere; the next attempt may not. */
const BATCH_LIMIT_MS = 60_000;
/** A little more than the 120 s after which sshd drops one that has not logged in: a person who is asked may take that long. */
const INTERACTIVE_LIMIT_MS = 150_000;
/** The relay removes a registration in some 20 ms and a round trip; the whole of `close` has 800. */
const RELEASE_MS = 400;
/** ssh prints the tunnel's port before anything of the session arrives, but into another pipe. */
const PORT_LATE_MS = 2_000;
const MAX_REASON_CHARS = 500;
const GREETING = 'opencode-connected 1';
const CANCELLED = 'the attempt was cancelled';

/** The relay is set up so that no connection may be kept: another attempt would only open the tunnel again. */
export class RelayRefusedError extends Error {
  override readonly name = 'RelayRefusedError';
}

/** Connects, takes a name and, where there is something to register, does. Rejects with the reason, safe to show, and with ssh ended; also soon after `signal` aborts. */
export async function openRelayConnection(
  options: RelayConnectionOptions,
  signal: AbortSignal,
): Promise<RelayConnection> {
  const connection = new Connection(options);
  const limitMs = options.interactive ? INTERACTIVE_LIMIT_MS : BATCH_LIMIT_MS;
  const settled = new AbortController();
  const onAbort = (): void => void connection.abandon(CANCELLED);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  void options.clock.sleep(limitMs, settled.signal).then(() => {
    if (!settled.signal.aborted) void connection.abandon(connection.lateness(limitMs));
  });
  try {
    await connection.established;
    return connection;
  } finally {
    settled.abort();
    signal.removeEventListener('abort', onAbort);
  }
}

class Connection implements RelayConnection {
  port = 0;
  name = '';
  directory: string | undefined;
  replies = 0;
  isUnseen = false;
  readonly lost: Promise<string>;
  /** Rejects with the reason when the connection is lost before. */
  readonly established: Promise<void>;
  readonly #options: RelayConnectionOptions;
  readonly #ssh: SshProcess;
  readonly #over = new AbortController();
  #greeted = false;
  /** The last lines of what ran before our program, or in its place. */
  readonly #printed: string[] = [];
  #began = false;
  #sent = false;
  #isRefused = false;
  #onEstablished: () => void = () => {};
  /** What is known better than from ssh's end. */
  #reason: string | undefined;

  constructor(options: RelayConnectionOptions) {
    this.#options = options;
    this.#ssh = startSsh({
      command: options.sshCommand,
      localPort: options.localPort,
      interactive: options.interactive,
      onLine: (line) => this.#take(line),
      onPort: (port) => {
        this.port = port;
        options.onLogin?.();
        this.#begin();
      },
      ...(options.onMessage !== undefined && { onMessage: options.onMessage }),
    });
    this.lost = this.#ssh.ended.then(async (reason) => {
      // Its group may have members left.
      await this.#ssh.end(0);
      this.#over.abort();
      return this.#explained(this.#reason ?? reason);
    });
    this.established = new Promise((resolve, reject) => {
      this.#onEstablished = resolve;
      void this.lost.then((reason) => reject(this.#isRefused ? new RelayRefusedError(reason) : new Error(reason)));
    });
  }

  /** `reason`, or what the relay ran in the place of our program, if it did: a forced command's own words say more than its end. */
  #explained(reason: string): string {
    const isLoggedIn = this.port !== 0 || this.#printed.length > 0;
    if (this.#greeted || !isLoggedIn || reason === CANCELLED || this.#options.sshCommand === undefined) return reason;
    return anotherCommand(this.#printed, reason);
  }

  get #place(): string {
    return this.#options.sshCommand === undefined ? 'this machine' : 'the relay';
  }

  get pid(): number | undefined {
    return this.#ssh.pid;
  }

  heartbeat(): void {
    this.#ssh.send('');
  }

  async close(): Promise<void> {
    this.#reason ??= 'closed';
    await this.#ssh.end(RELEASE_MS);
  }

  async abandon(reason: string): Promise<void> {
    this.#reason ??= reason;
    await this.#ssh.end(0);
  }

  /** Why it is not up after `limitMs`: what was the last to happen. */
  lateness(limitMs: number): string {
    const time = `within ${limitMs / 1000} s`;
    if (this.#options.sshCommand === undefined)
      return `the shell did not register anything ${time}; see whether the registry directory hangs`;
    if (!this.#greeted && this.port === 0)
      return `no connection to the relay ${time}; try the command of RELAY_SSH_CMD by hand`;
    if (!this.#greeted) return `there was no answer ${time}`;
    return `the relay did not take the registration ${time}; see whether its registry directory hangs`;
  }

  #take(line: string): void {
    // Login scripts may print whatever they like before, a line without its end (the title of the terminal) too.
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
    if (line === 'beat') this.replies += 1;
    else if (line === 'unseen') this.isUnseen = true;
    else if (line.startsWith('directory ')) this.directory = line.slice('directory '.length);
    else if (line === 'registered') this.#onEstablished();
    else if (line === 'released') this.#ssh.release();
    else if (line.startsWith('claimed ')) {
      this.name = line.slice('claimed '.length);
      this.#registerFirst();
    } else if (line.startsWith('error ')) {
      this.#reason ??= `${this.#place} says ${quoted(line.slice('error '.length), MAX_REASON_CHARS)}`;
      void this.#ssh.end(RELEASE_MS);
    } else if (line.startsWith('refused ')) {
      this.#isRefused = true;
      void this.abandon(`${this.#place} says ${quoted(line.slice('refused '.length), MAX_REASON_CHARS)}`);
    }
  }

  /** Once the program runs and the tunnel's port is known: the program looks first where that listens. */
  #begin(): void {
    if (this.#began || !this.#greeted || this.port === 0) return;
    this.#began = true;
    const { sshCommand, header } = this.#options;
    // Not before the greeting: what runs ahead of the program (gcloud, a login script) could read and show it.
    for (const line of [...(sshCommand === undefined ? [] : [`tunnel ${this.port}`]), ...header]) this.#ssh.send(line);
  }

  /** The person's own forwards may fail and ssh goes on, so that ours is judged here. */
  async #missPort(): Promise<void> {
    await this.#options.clock.sleep(PORT_LATE_MS, this.#over.signal);
    if (this.port !== 0 || this.#over.signal.aborted) return;
    const said = this.#ssh.lastWords;
    void this.abandon(
      said === ''
        ? 'ssh did not say which port the relay gave to the tunnel; take -q and LogLevel out of what RELAY_SSH_CMD runs'
        : `the relay gave no port to the tunnel: ssh says ${said}; see AllowTcpForwarding and PermitListen in its sshd_config, and restrict and permitlisten in its authorized_keys`,
    );
  }

  register(): void {
    const line = this.#options.registration(this.port, this.name);
    if (line !== undefined) this.#ssh.send(line);
  }

  #registerFirst(): void {
    if (this.#sent) return;
    this.#sent = true;
    if (this.#options.registration(this.port, this.name) === undefined) this.#onEstablished();
    else this.register();
  }
}
