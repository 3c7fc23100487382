import { systemClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { quoted } from '../../base/plain-text.ts';
import { ReportedError } from '../../base/program.ts';
import type { Settings } from '../../config/settings.ts';
import type { WatchedFolders } from '../../discovery/folder/watched-folders.ts';
import { createServiceSource } from '../../discovery/service/service.ts';
import { SourceUnavailableError } from '../../discovery/source.ts';
import { systemDependencies } from '../../discovery/sources.ts';
import type { Connection } from '../../http/exchange.ts';
import type { Candidate } from '../../model/candidate.ts';
import { type AskSettings, askCandidates } from '../ask-candidates.ts';
import { isAlive } from '../process-table.ts';
import { runBriefly } from '../run-briefly.ts';
import { MAX_SHOWN_CHARS } from '../shown.ts';
import { listenerOn } from '../start/port.ts';
import type { OpencodeGeneration } from './generation.ts';

export interface OwnServiceOptions {
  readonly settings: AskSettings & Pick<Settings, 'opencodeStateDir'>;
  readonly generation: Extract<OpencodeGeneration, { number: 2 }>;
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
}

export interface FoundService {
  /** The name of its file without the ending; each channel has one. */
  readonly key: string;
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** As the file names it, since the preview does not report its version. */
  readonly version: string;
}

/** `service start` returns within seconds, on a busy machine within ten. */
const START_LIMIT_MS = 30_000;
/** A service that is starting answers within a second. */
const POLL_MS = 250;
const MAX_LOOKS = 120;

type Standing =
  | { readonly kind: 'runs'; readonly found: FoundService }
  /** No service runs, so `service start` would replace nothing. */
  | { readonly kind: 'none' }
  /** `silent`: it may be about to answer. */
  | { readonly kind: 'silent' | 'wrong'; readonly reason: string };

/** This user's OpenCode 2 service, as its own file describes it. Never ends, replaces or restarts it. */
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

  /** Resolves once the service answers; starts it first if none runs. @throws {ReportedError} it does not start or answer */
  async ensure(signal: AbortSignal, onStart: () => void): Promise<FoundService> {
    const { program, env } = this.#options;
    let standing = await this.#look(signal);
    if (standing.kind === 'none' && !signal.aborted) {
      onStart();
      const { code, output, errors } = await runBriefly(program, ['service', 'start'], env, {
        limitMs: START_LIMIT_MS,
        signalsAll: false,
      });
      if (code !== 0) {
        const said = quoted(errors.trim() || output.trim() || 'nothing', MAX_SHOWN_CHARS);
        throw new ReportedError(`${program} service start did not start the service; it says ${said}`);
      }
    }
    for (let looks = 0; looks < MAX_LOOKS && !signal.aborted; looks += 1) {
      standing = await this.#look(signal);
      if (standing.kind === 'runs') return standing.found;
      if (standing.kind === 'wrong') throw new ReportedError(standing.reason);
      await systemClock.sleep(POLL_MS, signal);
    }
    const why = 'reason' in standing ? standing.reason : 'it left no file in its state folder that names it';
    throw new ReportedError(
      `the service of OpenCode 2 does not answer: ${why}; see opencode service status, or start opencode by itself once`,
    );
  }

  /** What its file says now; makes no request. */
  async now(signal: AbortSignal): Promise<Candidate | undefined> {
    const candidates = await this.#candidates(signal);
    const isSameVersion = (one: Candidate): boolean => one.claims.service?.version === this.#options.generation.version;
    return candidates.find(isSameVersion) ?? candidates[0];
  }

  /** The service's address and password, for a proxy. */
  async connection(signal: AbortSignal): Promise<Pick<Connection, 'endpoint' | 'credential'> | undefined> {
    const candidate = await this.now(signal);
    const credential = candidate?.credential;
    if (candidate?.trust.level !== 'trusted' || credential?.password.kind !== 'value') return undefined;
    const { password } = credential;
    return { endpoint: candidate.endpoint, credential: { username: 'opencode', password: password.value } };
  }

  /** Yields whenever its file may have changed. */
  changes(signal: AbortSignal): AsyncIterable<void> {
    return this.#source.changes(signal);
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  /** The services of the program's own release channel. A stable version's file is `service.json`. */
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
    if (result === undefined) return { kind: 'silent', reason: 'interrupted' };
    if (result.status === 'healthy') {
      const version = service?.version ?? result.version;
      return { kind: 'runs', found: { key: candidate.key, url, port, pid, version } };
    }
    // Another process has the port now, so the file's service has ended.
    if (result.status === 'locked' && result.isWithheld === true) return { kind: 'none' };
    return { kind: result.status === 'unhealthy' ? 'silent' : 'wrong', reason: result.reason };
  }
}
