import { type ChildProcess, spawn } from 'node:child_process';

import { systemClock } from '../../base/clock.ts';
import { healthOf, pathOf } from '../../probing/answers.ts';
import { requestJson, RequestError } from '../../http/exchange.ts';
import {
  endsWithin,
  familyOf,
  identifyProcess,
  isAlive,
  listenersOn,
  type ProcessIdentity,
  signalIfThere,
} from '../process-table.ts';
import { listenerOn } from './port.ts';

export interface OpencodeOptions {
  /** Absolute. */
  readonly program: string;
  readonly headless: boolean;
  /** The working directory; by default this process's own. */
  readonly directory?: string;
  readonly port: number;
  readonly host: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly password?: string;
}

export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Answering {
  readonly version: string;
  /** Its own directory, absolute. */
  readonly directory: string;
}

const POLL_MS = 100;
const ASK_LIMIT_MS = 5_000;
const MAX_ANSWER_BYTES = 256 * 1024;
/** opencode ends within a second, unless one of its tools hangs. */
const TERM_MS = 5_000;

export class OpencodeProcess {
  readonly pid: number;
  readonly port: number;
  /** The process that listens, if the program is a script that starts opencode. Known once opencode answers, if the system shows it. */
  server: ProcessIdentity | undefined;
  /** Never rejects. */
  readonly ended: Promise<Ending>;
  readonly #child: ChildProcess;
  readonly #options: OpencodeOptions;
  readonly #over = new AbortController();

  static async start(options: OpencodeOptions): Promise<OpencodeProcess> {
    const { program, headless, directory: cwd, port, host, args, env } = options;
    const listen = ['--port', String(port), '--hostname', host];
    const child = spawn(program, [...(headless ? ['serve'] : []), ...listen, ...args], { stdio: 'inherit', env, cwd });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    return new OpencodeProcess(child, options);
  }

  private constructor(child: ChildProcess, options: OpencodeOptions) {
    this.#child = child;
    this.#options = options;
    this.pid = child.pid ?? 0;
    this.port = options.port;
    this.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.#over.abort();
        void this.#endServer().then(() => resolve({ code, signal }));
      });
    });
  }

  /**
   * Resolves when it answers on its port; with `taken` if another process listens there, and with undefined if it has
   * ended. Has no time limit, since a cold start has none.
   */
  async answers(): Promise<Answering | 'taken' | undefined> {
    while (!this.#over.signal.aborted) {
      const owner = await this.#portOwner();
      if (owner === 'another') return 'taken';
      if (owner === 'own' || owner === 'unknown') {
        const answer = await this.#ask();
        if (answer !== undefined) return answer;
      }
      await systemClock.sleep(POLL_MS, this.#over.signal);
    }
    return undefined;
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.#over.signal.aborted) this.#child.kill(signal);
  }

  /** Ends it; sends SIGKILL after 5 s. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ending> {
    // Until it listens, any process that a script has started may be opencode.
    if (this.server === undefined && !this.#over.signal.aborted) {
      for (const pid of await familyOf(this.pid)) if (pid !== this.pid) signalIfThere(pid, signal);
    }
    this.kill(signal);
    // A stopped process does not act on a signal.
    this.kill('SIGCONT');
    const late = setTimeout(() => this.kill('SIGKILL'), TERM_MS);
    const ending = await this.ended;
    clearTimeout(late);
    return ending;
  }

  /** A script that a signal ended leaves its opencode running. */
  async #endServer(): Promise<void> {
    const server = this.server;
    if (server === undefined || !(await isAlive(server))) return;
    signalIfThere(server.pid, 'SIGTERM');
    signalIfThere(server.pid, 'SIGCONT');
    while (!(await endsWithin(server, TERM_MS))) signalIfThere(server.pid, 'SIGKILL');
  }

  /** Who listens on the port, if the system shows it. */
  async #portOwner(): Promise<'nobody' | 'own' | 'another' | 'unknown'> {
    if ((await listenerOn(this.port)) === 'none') return 'nobody';
    const [listeners, family] = await Promise.all([listenersOn(this.port), familyOf(this.pid)]);
    if (listeners === undefined) return 'unknown';
    const own = [...listeners].find((pid) => family.has(pid));
    if (own === undefined) return 'another';
    this.server ??= own === this.pid ? undefined : await identifyProcess(own);
    return 'own';
  }

  /** Undefined while there is no answer. */
  async #ask(): Promise<Answering | undefined> {
    const { password } = this.#options;
    const connection = {
      // `configured` sends the password even if the system does not show who listens. The port was free, and the password is new.
      endpoint: { url: `http://127.0.0.1:${this.port}`, route: 'loopback' as const, configured: true as const },
      ...(password !== undefined && { credential: { username: 'opencode', password } }),
    };
    const limits = { timeoutMs: ASK_LIMIT_MS, maxBytes: MAX_ANSWER_BYTES, signal: this.#over.signal };
    try {
      const health = healthOf(await requestJson(connection, '/global/health', limits));
      const paths = pathOf(await requestJson(connection, '/path', limits));
      return health?.healthy && paths !== undefined
        ? { version: health.version, directory: paths.directory }
        : undefined;
    } catch (error) {
      if (error instanceof RequestError) return undefined;
      throw error;
    }
  }
}
