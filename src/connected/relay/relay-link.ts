import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { quoted, singleLine } from '../../base/plain-text.ts';
import { openRelayConnection, type RelayConnection, RelayRefusedError } from './relay-connection.ts';
import { wantsPerson } from './ssh-process.ts';

export interface RelayLinkOptions {
  /** The person's ssh command in words, see `splitCommand`. Undefined: the registry directory of this machine, without a tunnel. */
  readonly sshCommand: readonly string[] | undefined;
  /** On the relay, or here: absolute, or beginning with `~/`. */
  readonly registryDirectory: string;
  /** Nobody has chosen that directory: where it is another user's, this user's own is taken. */
  readonly isDefaultDirectory?: boolean;
  /** Where the instance listens on 127.0.0.1. */
  readonly localPort: number;
  /** 1 to 64 letters, digits, `-` or `_`. */
  readonly id: string;
  readonly name: string;
  readonly password?: string;
  /** The registration's fields; `id`, `name` and `port` are set over them. Undefined: nothing is to be registered yet, see `announce`. */
  describe(port: number, name: string): Record<string, unknown> | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  /** From 0 to 1; spreads the attempts of many machines whose relay went away. */
  readonly random?: () => number;
  readonly onChange?: (state: RelayState) => void;
  /** What ssh prints before `connectFirst` resolves, line by line, safe to show: a banner, an address to open. */
  readonly onMessage?: (line: string) => void;
  /** Seconds without a line after which the relay removes the registration; default 90. */
  readonly limitSeconds?: number;
}

export interface RelayState {
  readonly kind: 'connecting' | 'connected' | 'waiting' | 'closed';
  /** The name on the relay, and the relay's end of the tunnel: while connected. */
  readonly name?: string;
  readonly port?: number;
  /** While waiting, or where it was closed because the relay's setting forbids it: why there is no connection; of an attempt that takes long, what it comes to. Safe to show. */
  readonly reason?: string;
  /** While waiting, by the clock that was given. Not set before `keep`. */
  readonly nextAttemptAtMs?: number;
}

export interface RelayLink {
  /**
   * The first attempt; where it fails for want of an answer, another at which ssh may ask at the terminal. Never rejects: gives
   * `connected`, `waiting` with the reason, or `closed`; and `connecting` after 3 s in which nothing was asked: it goes on
   * without a word on the terminal. Give up by `signal`. */
  connectFirst(signal: AbortSignal): Promise<RelayState>;
  /** From now on connects again by itself whenever there is no connection, without a word on the terminal. */
  keep(): void;
  readonly state: RelayState;
  /** Of the process that holds the connection, while there is one. */
  readonly pid: number | undefined;
  /** The registry directory that was taken, if another than was given. */
  readonly directory: string | undefined;
  /** `describe` says something else now: registers that, over the connection there is or the next one. */
  announce(): void;
  /** Takes the registration back and ends ssh and every attempt, within about 800 ms. Idempotent. */
  close(): Promise<void>;
}

/** A login takes up to 2 s across an ocean. Longer than this nobody waits for a relay that asks nothing. */
export const PATIENCE_MS = 3_000;
/** Four and a half of these fit into the relay's 90 s: three may be lost. */
const HEARTBEAT_MS = 20_000;
/** Two answers missing, and as long as ssh's own keepalive takes. */
const REPLY_LIMIT_MS = 45_000;
/** Between two looks at the clock of a connection. A suspended machine shows as a look that took longer. */
const LOOK_MS = 5_000;
/** While waiting: to be up a moment after a laptop is. */
const WAITING_LOOK_MS = 1_000;
/** No timer is this late on a machine that runs. */
const JUMP_MS = 10_000;
/** After a wake-up most connections are dead; one that is not answers in a round trip. */
const REPLY_LIMIT_AFTER_JUMP_MS = 10_000;
const MIN_DELAY_MS = 1_000;
const MAX_DELAY_MS = 60_000;
/** A connection that held so long was no part of a series of failures. */
const STABLE_MS = 60_000;
/** As for a registration: a file name has 255 bytes, and `-12` and `.claim` are added to it. */
const MAX_NAME_BYTES = 200;
const MAX_PRINTED_CHARS = 200;

/**
 * Keeps one instance registered and reachable on a relay, over one SSH connection at a time; or registered on this machine,
 * by the same program in a shell of its own, which tidies up even after a process that was killed. Throws at once for what no attempt could send. */
export function createRelayLink(options: RelayLinkOptions): RelayLink {
  check(options);
  return new Link(options);
}

class Link implements RelayLink {
  readonly #options: RelayLinkOptions;
  readonly #stop = new AbortController();
  #state: RelayState = { kind: 'waiting' };
  #connection: RelayConnection | undefined;
  /** Settles when the connection is lost. */
  #holding: Promise<void> | undefined;
  #attempting: Promise<void> | undefined;
  #keeping: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  /** The name of the connection before: one that was shown stays. */
  #name: string | undefined;
  #directory: string | undefined;
  #failures = 0;
  #lastLogged: string | undefined;
  #warned = false;
  /** The terminal is still ours. */
  #mayTell = false;
  /** What the relay printed last before our program, in this attempt. */
  #printed = '';

  constructor(options: RelayLinkOptions) {
    this.#options = options;
  }

  get state(): RelayState {
    return this.#state;
  }

  get pid(): number | undefined {
    return this.#connection?.pid;
  }

  get directory(): string | undefined {
    return this.#directory;
  }

  async connectFirst(signal: AbortSignal): Promise<RelayState> {
    if (this.#connection !== undefined) return this.#state;
    const cancelled = AbortSignal.any([signal, this.#stop.signal]);
    this.#mayTell = true;
    await this.#attemptPatiently(false, cancelled);
    const { kind, reason = '' } = this.#state;
    if (kind === 'waiting' && wantsPerson(reason) && !cancelled.aborted) await this.#attemptPatiently(true, cancelled);
    this.#mayTell = false;
    if (this.#state.kind !== 'connecting' || this.#printed.trim() === '') return this.#state;
    // It may wait for somebody to read that.
    return {
      ...this.#state,
      reason: `no answer within ${PATIENCE_MS / 1000} s; the relay printed ${quoted(this.#printed, MAX_PRINTED_CHARS)}`,
    };
  }

  /** Resolves when the attempt has ended, or has taken too long since nothing was asked any more. */
  async #attemptPatiently(interactive: boolean, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const over = new AbortController();
    let onLogin = (): void => {};
    const asked = interactive ? new Promise<void>((resolve) => (onLogin = resolve)) : Promise.resolve();
    const late = asked.then(() => clock.sleep(PATIENCE_MS, over.signal));
    await Promise.race([this.#attempt(interactive, signal, onLogin), late]);
    over.abort();
  }

  announce(): void {
    this.#connection?.register();
  }

  keep(): void {
    this.#keeping ??= this.#supervise();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#connection?.close(), this.#attempting]);
    await Promise.all([this.#holding, this.#keeping]);
    this.#enter({ kind: 'closed' });
  }

  async #supervise(): Promise<void> {
    const { signal } = this.#stop;
    while (!this.#isOver) {
      await this.#attempting;
      await this.#holding;
      await this.#wait();
      if (!this.#isOver) await this.#attempt(false, signal);
    }
  }

  get #isOver(): boolean {
    return this.#stop.signal.aborted || this.#state.kind === 'closed';
  }

  /** One connection; its end, or its failure, leaves the state `waiting`. */
  async #attempt(interactive: boolean, signal: AbortSignal, onLogin?: () => void): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#enter({ kind: 'connecting' });
    const opening = this.#open(interactive, signal, onLogin);
    this.#attempting = opening;
    await opening;
    this.#attempting = undefined;
  }

  async #open(interactive: boolean, signal: AbortSignal, onLogin?: () => void): Promise<void> {
    const { sshCommand, localPort, clock, id, onMessage } = this.#options;
    this.#printed = '';
    try {
      const connection = await openRelayConnection(
        {
          sshCommand,
          localPort,
          interactive,
          header: this.#header(),
          registration: (port, name) => {
            const fields = this.#options.describe(port, name);
            return fields && JSON.stringify({ ...fields, id, name, port });
          },
          clock,
          // What it fails for is asked next.
          onMessage: (line) => this.#mayTell && (interactive || !wantsPerson(line)) && onMessage?.(line),
          onPrinted: (line) => (this.#printed = line),
          ...(onLogin !== undefined && { onLogin }),
        },
        signal,
      );
      if (this.#stop.signal.aborted) return await connection.close();
      this.#connection = connection;
      this.#name = connection.name;
      this.#directory = connection.directory;
      this.#lastLogged = undefined;
      this.#log('info', `connected to ${this.#place}`, { name: connection.name, port: connection.port });
      this.#enter({ kind: 'connected', name: connection.name, port: connection.port });
      this.#holding = this.#hold(connection);
      if (connection.isUnseen && !this.#warned) {
        this.#warned = true;
        this.#log(
          'warn',
          'the relay cannot see whether the tunnel is open to other machines: see that GatewayPorts is no in its sshd_config',
          {},
        );
      }
    } catch (error) {
      if (error instanceof RelayRefusedError) {
        this.#log('warn', `no connection to ${this.#place}`, { reason: error.message });
        this.#enter({ kind: 'closed', reason: error.message });
        return;
      }
      this.#failed(error instanceof Error ? error.message : String(error));
    }
  }

  get #place(): string {
    return this.#options.sshCommand === undefined ? 'the registry directory' : 'the relay';
  }

  #header(): string[] {
    const { sshCommand, registryDirectory, isDefaultDirectory, id, name, password, limitSeconds } = this.#options;
    return [
      `directory ${registryDirectory}`,
      ...(isDefaultDirectory === true ? ['default yes'] : []),
      `id ${id}`,
      `name ${name}`,
      ...(sshCommand === undefined ? ['place here'] : []),
      ...(this.#name === undefined ? [] : [`keep ${this.#name}`]),
      ...(password === undefined ? [] : [`password ${password}`]),
      ...(limitSeconds === undefined ? [] : [`limit ${limitSeconds}`]),
      '',
    ];
  }

  /** Heartbeats until the connection is lost, or is taken for lost. */
  async #hold(connection: RelayConnection): Promise<void> {
    const { clock } = this.#options;
    const over = new AbortController();
    const lost = connection.lost.finally(() => over.abort());
    let upMs = 0;
    let sinceHeartbeatMs = 0;
    let silentMs = 0;
    let limitMs = REPLY_LIMIT_MS;
    let replies = 0;
    let isAwake = true;
    while (!over.signal.aborted) {
      const beforeMs = clock.now();
      await clock.sleep(LOOK_MS, over.signal);
      const passedMs = Math.max(0, clock.now() - beforeMs);
      isAwake = passedMs < LOOK_MS + JUMP_MS;
      if (over.signal.aborted) break;
      upMs += passedMs;
      if (connection.replies !== replies || !isAwake) {
        limitMs = isAwake ? REPLY_LIMIT_MS : REPLY_LIMIT_AFTER_JUMP_MS;
        replies = connection.replies;
        silentMs = 0;
      } else {
        silentMs += passedMs;
      }
      if (silentMs >= limitMs) {
        void connection.abandon(`${this.#place} has not answered for ${Math.round(silentMs / 1000)} s`);
        break;
      }
      sinceHeartbeatMs += passedMs;
      if (sinceHeartbeatMs < HEARTBEAT_MS) continue;
      sinceHeartbeatMs = 0;
      connection.heartbeat();
    }
    const reason = await lost;
    this.#connection = undefined;
    this.#holding = undefined;
    // A wake-up is no failure of the relay's either.
    if (upMs >= STABLE_MS || !isAwake || limitMs !== REPLY_LIMIT_MS) this.#failures = 0;
    this.#failed(reason);
  }

  #failed(reason: string): void {
    if (this.#stop.signal.aborted) return;
    this.#failures += 1;
    // At most once for a series of the same: it may go on all night.
    this.#log(reason === this.#lastLogged ? 'debug' : 'warn', `no connection to ${this.#place}`, { reason });
    this.#lastLogged = reason;
    this.#enter({ kind: 'waiting', reason });
  }

  /** Until the next attempt is due: at once when none has failed yet, or when the machine has slept. */
  async #wait(): Promise<void> {
    const { clock, random = Math.random } = this.#options;
    const { signal } = this.#stop;
    if (this.#failures === 0 || signal.aborted) return;
    const most = Math.min(MAX_DELAY_MS, MIN_DELAY_MS * 2 ** Math.min(this.#failures, 16));
    const dueMs = clock.now() + MIN_DELAY_MS + random() * (most - MIN_DELAY_MS);
    this.#enter({ ...this.#state, nextAttemptAtMs: dueMs });
    while (!signal.aborted && clock.now() < dueMs) {
      const beforeMs = clock.now();
      await clock.sleep(Math.min(WAITING_LOOK_MS, dueMs - beforeMs), signal);
      const passedMs = clock.now() - beforeMs;
      // Set back, the clock would have this wait for as long.
      if (passedMs >= 0 && passedMs < WAITING_LOOK_MS + JUMP_MS) continue;
      this.#failures = 0;
      return;
    }
  }

  #enter(state: RelayState): void {
    if (this.#state.kind === 'closed') return;
    this.#state = state;
    this.#options.onChange?.(state);
  }

  #log(level: 'debug' | 'info' | 'warn', message: string, fields: Record<string, string | number>): void {
    this.#options.logger.log(level, message, fields);
  }
}

function check({ registryDirectory, id, name, password = '', sshCommand }: RelayLinkOptions): void {
  if (sshCommand?.length === 0)
    throw new Error('RELAY_SSH_CMD: expected a command such as "ssh user@relay", got nothing');
  if (!/^(?:\/|~$|~\/)/.test(registryDirectory) || hasControls(registryDirectory)) {
    throw new Error(
      `RELAY_REMOTE_REGISTRY_DIR: expected an absolute directory of the relay, or one that begins with ~/, without control characters, got ${shown(registryDirectory)}`,
    );
  }
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) {
    throw new Error(`id: expected 1 to 64 letters, digits, "-" or "_", got ${shown(id)}`);
  }
  if (name === '' || name.startsWith('.') || name.includes('/') || hasControls(name)) {
    throw new Error(
      `INSTANCE_NAME: expected a name without slashes, control characters or a leading dot, got ${shown(name)}`,
    );
  }
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) {
    throw new Error(`INSTANCE_NAME: expected at most ${MAX_NAME_BYTES} bytes, got ${Buffer.byteLength(name)}`);
  }
  // Never shown.
  if (hasControls(password)) throw new Error('password: expected one without control characters, got one with');
}

/** What is sent are lines; a NUL is no part of any file name. */
function hasControls(text: string): boolean {
  // oxlint-disable-next-line no-control-regex -- what is looked for
  return /[\u0000-\u001f\u007f]/.test(text);
}

function shown(text: string): string {
  return JSON.stringify(singleLine(text, 100));
}
