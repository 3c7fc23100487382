import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { quoted } from '../../base/plain-text.ts';
import type { Settings } from '../../config/settings.ts';
import type { RelayState } from '../run-state.ts';
import { JUMP_MS, sendHeartbeats } from './heartbeats.ts';
import { RelayConnection, RelayRefusedError } from './relay-connection.ts';
import { wantsPerson } from './ssh-failures.ts';

export interface RelayLinkOptions {
  /** The person's ssh command in words. Undefined: register on this machine, without a tunnel. */
  readonly sshCommand: readonly string[] | undefined;
  /** On the relay, or here. A default directory (not `explicit`) that belongs to another user is replaced by this user's own. */
  readonly registryDir: Settings['registryDir'];
  readonly localPort: number;
  readonly id: string;
  readonly name: string;
  readonly password?: string | undefined;
  /** The registration's fields, except `id`, `name` and `port`. Undefined: register nothing yet, see `announce`. */
  describe(port: number, name: string): Record<string, unknown> | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  /** From 0 to 1; spreads the attempts of many machines whose relay went away. */
  readonly random?: () => number;
  readonly onChange?: (state: RelayState) => void;
  /** Called with each line that ssh prints before `connectFirst` resolves, safe to show: a banner, an address to open. */
  readonly onMessage?: (line: string) => void;
}

/** How long the start waits for a relay that asks nothing: a login takes up to 2 s across an ocean. */
export const FIRST_WAIT_MS = 3_000;
/** How often the clock is read while waiting, so that the link is up a moment after a laptop wakes up. */
const WAITING_LOOK_MS = 1_000;
const MIN_DELAY_MS = 1_000;
const MAX_DELAY_MS = 60_000;
const MAX_PRINTED_CHARS = 200;

/**
 * Keeps one instance registered and reachable on a relay, over one SSH connection at a time. Without an ssh command, keeps it registered
 * on this machine: a shell runs the same program, which tidies up even if this process is killed.
 */
export class RelayLink {
  /** The registry directory that was taken, if it differs from the given one. */
  directory: string | undefined;
  readonly #options: RelayLinkOptions;
  readonly #stop = new AbortController();
  #state: RelayState = { kind: 'waiting' };
  #connection: RelayConnection | undefined;
  /** Settles when the current attempt has failed, or its connection is lost. */
  #current: Promise<void> | undefined;
  #keeping: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  /** The name of the previous connection; kept, because it was shown. */
  #name: string | undefined;
  #failures = 0;
  #lastLogged: string | undefined;
  #hasWarned = false;
  /** Whether opencode has not taken the terminal yet. */
  #mayPrint = false;
  /** The last line that the relay printed before our program, in this attempt. */
  #printed = '';

  /** Throws if a value cannot be sent in a line. */
  constructor(options: RelayLinkOptions) {
    this.#options = options;
    for (const line of this.#header()) {
      // oxlint-disable-next-line no-control-regex -- a line break would begin a line of its own; no file name holds a NUL
      if (!/[\u0000-\u001f\u007f]/.test(line)) continue;
      throw new Error(`cannot register: the ${line.split(' ', 1)[0]} contains a control character; choose another`);
    }
  }

  get state(): RelayState {
    return this.#state;
  }

  get pid(): number | undefined {
    return this.#connection?.pid;
  }

  /**
   * Makes the first attempt. If it fails because ssh had to ask something, makes another that may ask at the terminal. Resolves with
   * `connected`, with `waiting` or `closed` and the reason, or with `connecting` if an attempt that asks nothing takes more than 3 s; it
   * then goes on in the background. Never rejects. `signal` ends the attempt.
   */
  async connectFirst(signal: AbortSignal): Promise<RelayState> {
    if (this.#connection !== undefined) return this.#state;
    const cancelled = AbortSignal.any([signal, this.#stop.signal]);
    this.#mayPrint = true;
    await this.#attemptBriefly(false, cancelled);
    const { kind, reason = '' } = this.#state;
    if (kind === 'waiting' && wantsPerson(reason) && !cancelled.aborted) await this.#attemptBriefly(true, cancelled);
    this.#mayPrint = false;
    if (this.#state.kind !== 'connecting' || this.#printed.trim() === '') return this.#state;
    // The relay may wait for a person to read this.
    return {
      ...this.#state,
      reason: `no answer within ${FIRST_WAIT_MS / 1000} s; the relay printed ${quoted(this.#printed, MAX_PRINTED_CHARS)}`,
    };
  }

  /** Resolves when the attempt has ended, or 3 s after the moment from which ssh asks nothing. */
  async #attemptBriefly(interactive: boolean, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const over = new AbortController();
    let onLogin = (): void => {};
    const asked = interactive ? new Promise<void>((resolve) => (onLogin = resolve)) : Promise.resolve();
    const late = asked.then(() => clock.sleep(FIRST_WAIT_MS, over.signal));
    await Promise.race([this.#attempt(interactive, signal, onLogin), late]);
    over.abort();
  }

  /** Registers what `describe` returns now, over this connection or the next one. */
  announce(): void {
    this.#connection?.register();
  }

  /** From now on reconnects by itself, without printing to the terminal. */
  keep(): void {
    this.#keeping ??= this.#supervise();
  }

  /** Withdraws the registration and ends ssh and every attempt, within about 800 ms. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#connection?.close(), this.#current, this.#keeping]);
    this.#enter({ kind: 'closed' });
  }

  async #supervise(): Promise<void> {
    while (!this.#isOver) {
      await this.#current;
      await this.#wait();
      if (!this.#isOver) await this.#attempt(false, this.#stop.signal);
    }
  }

  get #isOver(): boolean {
    return this.#stop.signal.aborted || this.#state.kind === 'closed';
  }

  /** Resolves when connected, or in state `waiting` or `closed` with the reason. */
  async #attempt(interactive: boolean, signal: AbortSignal, onLogin?: () => void): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#enter({ kind: 'connecting' });
    const opening = this.#open(interactive, signal, onLogin);
    this.#current = opening.then((connection) => connection && this.#hold(connection));
    await opening;
  }

  async #open(interactive: boolean, signal: AbortSignal, onLogin?: () => void): Promise<RelayConnection | undefined> {
    const { sshCommand, localPort, clock, id, onMessage } = this.#options;
    this.#printed = '';
    try {
      const connection = await RelayConnection.open(
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
          // Hides lines about a question that the interactive attempt will ask.
          onMessage: (line) => this.#mayPrint && (interactive || !wantsPerson(line)) && onMessage?.(line),
          onPrinted: (line) => (this.#printed = line),
          onLogin,
        },
        signal,
      );
      if (!this.#stop.signal.aborted) return this.#connected(connection);
      await connection.close();
    } catch (error) {
      const reason = messageOf(error);
      if (error instanceof RelayRefusedError) {
        this.#log('warn', `no connection to ${this.#place}`, { reason });
        this.#enter({ kind: 'closed', reason });
      } else this.#failed(reason);
    }
    return undefined;
  }

  #connected(connection: RelayConnection): RelayConnection {
    const { name, port, directory, isUnseen } = connection;
    if (isUnseen && !this.#hasWarned)
      this.#log(
        'warn',
        'the relay cannot see whether the tunnel is open to other machines: check that GatewayPorts is no in its sshd_config',
      );
    this.#hasWarned ||= isUnseen;
    this.#connection = connection;
    this.#name = name;
    this.directory = directory;
    this.#lastLogged = undefined;
    this.#log('info', `connected to ${this.#place}`, { name, port });
    this.#enter({ kind: 'connected', name, port });
    return connection;
  }

  get #place(): string {
    return this.#options.sshCommand === undefined ? 'the registry directory' : 'the relay';
  }

  #header(): string[] {
    const { sshCommand, registryDir, id, name, password } = this.#options;
    return [
      `directory ${registryDir.path}`,
      ...(registryDir.explicit ? [] : ['default yes']),
      `id ${id}`,
      `name ${name}`,
      ...(sshCommand === undefined ? ['place here'] : []),
      ...(this.#name === undefined ? [] : [`keep ${this.#name}`]),
      ...(password === undefined ? [] : [`password ${password}`]),
      '',
    ];
  }

  async #hold(connection: RelayConnection): Promise<void> {
    const { reason, wasStable } = await sendHeartbeats(connection, { clock: this.#options.clock, place: this.#place });
    this.#connection = undefined;
    if (wasStable) this.#failures = 0;
    this.#failed(reason);
  }

  #failed(reason: string): void {
    if (this.#stop.signal.aborted) return;
    this.#failures += 1;
    // Warns once per series of failures with the same reason: it may last all night.
    this.#log(reason === this.#lastLogged ? 'debug' : 'warn', `no connection to ${this.#place}`, { reason });
    this.#lastLogged = reason;
    this.#enter({ kind: 'waiting', reason });
  }

  /** Resolves when the next attempt is due: at once if none has failed, or when the machine wakes up. */
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
      // A clock that was set back would prolong the wait by as much.
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

  #log(level: 'debug' | 'info' | 'warn', message: string, fields: Record<string, string | number> = {}): void {
    this.#options.logger.log(level, message, fields);
  }
}
