import { unsupportedReason } from '../../probing/supported-version.ts';
import type { Logger } from '../../base/log.ts';
import { ReportedError } from '../../base/program.ts';
import { processIdentity } from '../process-table.ts';
import type { Guard } from './guard.ts';
import { type Answering, type Ending, type OpencodeOptions, OpencodeProcess } from './opencode-process.ts';
import { cannotListen, choosePort, isFree } from './port.ts';
import type { RunningInstance } from './registrations.ts';
import type { Terminal } from './terminal.ts';
import { messageOf } from '../../base/errors.ts';

export interface SupervisedOptions {
  readonly launch: Omit<OpencodeOptions, 'port'>;
  /** The only port to listen on. Undefined: any free one. */
  readonly wantedPort: number | undefined;
  readonly terminal: Terminal;
  readonly guard: Pick<Guard, 'watch'>;
  readonly logger: Logger;
}

export interface Hooks {
  /** Called when opencode answers on its port. */
  readonly answers: (instance: RunningInstance, port: number) => void;
  /** Called with the next port if another process took the port first. */
  readonly moved: (port: number) => Promise<void>;
}

/** Another process rarely takes a port between its choice and its use, and hardly ever several in a row. */
const MAX_STARTS = 5;

/** @throws {ReportedError} the terminal of that version would stay blank */
export function refuseTooOld(version: string): void {
  const problem = unsupportedReason(version);
  if (problem === undefined) return;
  throw new ReportedError(`${problem}; its terminal does not work behind a password. Update it: opencode upgrade`);
}

/** Runs opencode on a port that no other process has, until it ends. */
export class Supervised {
  readonly #options: SupervisedOptions;
  readonly #taken = new Set<number>();
  #port = 0;
  #current: OpencodeProcess | undefined;
  #stopping: NodeJS.Signals | undefined;

  constructor(options: SupervisedOptions) {
    this.#options = options;
  }

  get port(): number {
    return this.#port;
  }

  async choosePort(): Promise<void> {
    const { launch, wantedPort } = this.#options;
    this.#port = wantedPort ?? (await choosePort(launch.host, this.#taken));
    if (wantedPort === undefined || (!this.#taken.has(wantedPort) && (await isFree(wantedPort, launch.host)))) return;
    throw cannotListen(wantedPort);
  }

  /** Sends `signal`, and SIGKILL 5 s later. */
  stop(signal: NodeJS.Signals): void {
    this.#stopping ??= signal;
    void this.#current?.stop(signal);
  }

  /** Passes on a signal that the terminal may have sent to opencode as well. */
  pass(signal: NodeJS.Signals): void {
    this.#current?.kill(signal);
  }

  /** Resolves with how it ended. */
  async run(hooks: Hooks): Promise<Ending> {
    let opencode = await this.#start();
    let answer = await this.#answerOf(opencode);
    while (answer === 'taken' && this.#stopping === undefined) {
      await this.#leavePort(opencode);
      await hooks.moved(this.#port);
      opencode = await this.#start();
      answer = await this.#answerOf(opencode);
    }
    if (typeof answer === 'object') {
      const { directory } = answer;
      if (opencode.server !== undefined) this.#options.guard.watch('server', opencode.server);
      hooks.answers({ process: await processIdentity(opencode.pid), directory }, opencode.port);
    }
    const ending = await opencode.ended;
    if (ending.signal !== null) this.#options.terminal.restore();
    return ending;
  }

  /** Ends an opencode that cannot listen, and chooses another port. */
  async #leavePort(opencode: OpencodeProcess): Promise<void> {
    this.#options.logger.log('warn', 'another process listens on the port', { port: this.#port });
    await opencode.stop('SIGKILL');
    this.#options.terminal.restore();
    this.#taken.add(this.#port);
    if (this.#taken.size === MAX_STARTS)
      throw new ReportedError('other processes took every port that was chosen; try again');
    await this.choosePort();
  }

  async #start(): Promise<OpencodeProcess> {
    const { launch, guard } = this.#options;
    const opencode = await OpencodeProcess.start({ ...launch, port: this.#port }).catch((error: unknown) => {
      throw new ReportedError(`cannot start ${launch.program}: ${messageOf(error)}`);
    });
    this.#current = opencode;
    guard.watch('opencode', await processIdentity(opencode.pid));
    if (this.#stopping !== undefined) void opencode.stop(this.#stopping);
    return opencode;
  }

  /** As `OpencodeProcess.answers`, but rejects a version that is too old: a script around opencode may have hidden it until now. */
  async #answerOf(opencode: OpencodeProcess): Promise<Answering | 'taken' | undefined> {
    const { logger, terminal } = this.#options;
    const answer = await opencode.answers();
    try {
      if (typeof answer === 'object') refuseTooOld(answer.version);
      return answer;
    } catch (error) {
      logger.log('error', messageOf(error));
      await opencode.stop();
      terminal.restore();
      throw error;
    }
  }
}
