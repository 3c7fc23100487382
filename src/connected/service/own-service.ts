import type { Clock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { quoted } from '../../base/plain-text.ts';
import { ReportedError } from '../../base/program.ts';
import type { Settings } from '../../config/settings.ts';
import type { WatchedFolders } from '../../discovery/folder/watched-folders.ts';
import { createServiceSource } from '../../discovery/service/service.ts';
import { SourceUnavailableError } from '../../discovery/source.ts';
import { systemDependencies } from '../../discovery/sources.ts';
import { listenerOn } from '../start/port.ts';
import type { Candidate } from '../../model/candidate.ts';
import type { Connection } from '../../http/exchange.ts';
import { type AskSettings, askCandidates } from '../ask-candidates.ts';
import { isAlive } from '../process-table.ts';
import type { OpencodeGeneration } from './generation.ts';
import { runBriefly } from '../run-briefly.ts';

export interface OwnServiceOptions {
  readonly settings: AskSettings & Pick<Settings, 'opencodeStateDir'>;
  readonly generation: Extract<OpencodeGeneration, { number: 2 }>;
  /** Absolute. */
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
  readonly clock: Clock;
}

/** A service that answered as the one that its file names. */
export interface FoundService {
  /** The name of its file, without the ending: there is one for each channel. */
  readonly key: string;
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Of the service. The preview's is that of its file. */
  readonly version: string;
}

/** The service is not there, or not as it should be; the message says what to do. */
export class ServiceError extends ReportedError {
  override readonly name = 'ServiceError';
}

/** `service start` returns within seconds, on a busy machine within ten. */
const START_LIMIT_MS = 30_000;
/** A service that was started, or is being started by another, answers within a second. */
const POLL_MS = 250;
const MAX_LOOKS = 120;
const MAX_REASON_CHARS = 300;

type Standing =
  | { readonly kind: 'runs'; readonly found: FoundService }
  /** Nothing runs that `service start` could replace. */
  | { readonly kind: 'none' }
  /** Something is there, and may be about to answer. */
  | { readonly kind: 'silent' | 'wrong'; readonly reason: string };

/** The one OpenCode 2 service of this user, as its own file names it. Never ended, replaced or restarted from here. */
export class OwnService {
  readonly #options: OwnServiceOptions;
  readonly #source: WatchedFolders;

  constructor(options: OwnServiceOptions) {
    this.#options = options;
    this.#source = createServiceSource(
      { directory: options.settings.opencodeStateDir },
      systemDependencies(silentLogger),
    );
  }

  /** Starts it by the program itself where nothing runs. Rejects with a `ServiceError`. */
  async ensure(signal: AbortSignal, onStart: () => void): Promise<FoundService> {
    const { program, env, clock } = this.#options;
    let standing = await this.#look(signal);
    if (standing.kind === 'none' && !signal.aborted) {
      onStart();
      const { code, output, errors } = await runBriefly(program, ['service', 'start'], env, {
        limitMs: START_LIMIT_MS,
        signalsAll: false,
      });
      if (code !== 0) {
        const said = quoted(errors.trim() || output.trim() || 'nothing', MAX_REASON_CHARS);
        throw new ServiceError(`${program} service start did not start the service; it says ${said}`);
      }
    }
    for (let looks = 0; looks < MAX_LOOKS && !signal.aborted; looks += 1) {
      standing = await this.#look(signal);
      if (standing.kind === 'runs') return standing.found;
      if (standing.kind === 'wrong') throw new ServiceError(standing.reason);
      await clock.sleep(POLL_MS, signal);
    }
    const why = 'reason' in standing ? standing.reason : 'it left no file in its state folder that names it';
    throw new ServiceError(
      `the service of OpenCode 2 does not answer: ${why}; see opencode service status, or start opencode by itself once`,
    );
  }

  /** As its file has it now; nothing was asked. */
  async now(signal: AbortSignal): Promise<Candidate | undefined> {
    const candidates = await this.#candidates(signal);
    const version = (one: Candidate): boolean => one.claims.service?.version === this.#options.generation.version;
    return candidates.find(version) ?? candidates[0];
  }

  /** Where to send what a proxy takes, with the password. */
  async connection(signal: AbortSignal): Promise<Pick<Connection, 'endpoint' | 'credential'> | undefined> {
    const candidate = await this.now(signal);
    const credential = candidate?.credential;
    if (candidate?.trust.level !== 'trusted' || credential?.password.kind !== 'value') return undefined;
    const { password } = credential;
    return { endpoint: candidate.endpoint, credential: { username: 'opencode', password: password.value } };
  }

  /** Each time its file may have changed. */
  changes(signal: AbortSignal): AsyncIterable<void> {
    return this.#source.changes(signal);
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  /** Of the program's own channel: a stable version's is `service.json`. */
  async #candidates(signal: AbortSignal): Promise<readonly Candidate[]> {
    const { isPreview, version = '' } = this.#options.generation;
    const isOwn = (key: string): boolean => {
      if (isPreview === true) return key === 'server';
      return /[-+]/.test(version) ? key.startsWith('service-') : key === 'service';
    };
    try {
      const { candidates } = await this.#source.scan(signal);
      return candidates.filter(({ key }) => isOwn(key));
    } catch (error) {
      if (error instanceof SourceUnavailableError) return [];
      throw error;
    }
  }

  async #look(signal: AbortSignal): Promise<Standing> {
    const candidate = await this.now(signal);
    const service = candidate?.claims.service;
    const pid = service?.pid;
    if (candidate === undefined || pid === undefined) return { kind: 'none' };
    if (candidate.trust.level === 'untrusted') return { kind: 'wrong', reason: candidate.trust.reason };
    const { url } = candidate.endpoint;
    const port = Number(new URL(url).port);
    if (!(await isAlive({ pid })) || (await listenerOn(port)) === 'none') return { kind: 'none' };
    const [outcome] = await askCandidates([candidate], this.#options.settings, signal);
    const result = outcome?.result;
    switch (result?.status) {
      case undefined:
        return { kind: 'silent', reason: 'interrupted' };
      case 'healthy':
        return {
          kind: 'runs',
          found: { key: candidate.key, url, port, pid, version: service?.version ?? result.version },
        };
      case 'locked':
        // Of another process now: the file is of a service that has ended.
        return result.isWithheld === true ? { kind: 'none' } : { kind: 'wrong', reason: result.reason };
      case 'unsupported':
        return { kind: 'wrong', reason: result.reason };
      case 'unhealthy':
        return { kind: 'silent', reason: result.reason };
    }
  }
}
