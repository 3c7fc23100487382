import { realpath } from 'node:fs/promises';
import { setMaxListeners } from 'node:events';

import { systemClock } from '../../base/clock.ts';
import { createCredentialResolver } from '../../credentials/resolver.ts';
import { createSecretCommands } from '../../credentials/secret-commands.ts';
import { Prober, type ProbeOutcome, type ProbeTarget } from '../../probing/prober.ts';
import { createSameDirectory, type SameDirectory } from '../../probing/same-directory.ts';
import { createRegistrySource, registryOptionsOf } from '../../discovery/registry/registry.ts';
import type { Candidate, Note } from '../../model/candidate.ts';
import { SourceUnavailableError } from '../../discovery/source.ts';
import { systemDependencies } from '../../discovery/sources.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { silentLogger } from '../../base/log.ts';
import type { Connection } from '../../http/exchange.ts';
import { quoteName, singleLine } from '../../base/plain-text.ts';
import { type Places } from './places.ts';
import { messageOf } from '../../base/errors.ts';

/** What answers at a registration's port right now. Text is safe to show. */
export type PortAnswer =
  | { readonly state: 'healthy'; readonly version: string; readonly directory: string }
  /** Another instance than was registered. */
  | { readonly state: 'other'; readonly version: string; readonly directory: string; readonly reason: string }
  | {
      /**
       * `locked`: it refuses our password, or wants one; `refused`: nothing listens; `silent`: something does and does not answer;
       * `failed`: it answers, but not as an opencode does; `untrusted`: not asked, others can write the registration.
       */
      readonly state: 'locked' | 'refused' | 'silent' | 'unsupported' | 'failed' | 'untrusted';
      readonly reason: string;
    };

/** A registration on this machine, asked. */
export interface Registered {
  readonly candidate: Candidate;
  readonly answer: PortAnswer;
  /** With the password that fits. Only for one that is healthy. */
  readonly connection?: Connection;
  /** As its own `/path` tells it, unchanged: the only one that may go into a request. Only for one that is healthy. */
  readonly ownDirectory?: string;
}

export interface RegisteredHere {
  /** In the order of the file names. */
  readonly registered: readonly Registered[];
  readonly notes: readonly Note[];
  /** Why the directory could not be read. */
  readonly problem?: string;
  /** There is none yet, which is no problem. */
  readonly isMissing: boolean;
}

const MAX_DIRECTORY_CHARS = 300;
const MAX_REASON_CHARS = 300;

/** Reads this machine's registry directory as `opencode-mcp` does, and asks what answers. Never rejects. */
export async function askRegistered(settings: Places, signal: AbortSignal): Promise<RegisteredHere> {
  const source = createRegistrySource(registryOptionsOf(settings), systemDependencies(silentLogger));
  try {
    const { candidates, notes } = await source.scan(signal);
    return { registered: await askAll(candidates, settings, signal), notes, isMissing: false };
  } catch (error) {
    const isMissing = error instanceof SourceUnavailableError;
    return { registered: [], notes: [], isMissing, ...(!isMissing && { problem: messageOf(error) }) };
  } finally {
    await source.close();
  }
}

async function askAll(
  candidates: readonly Candidate[],
  settings: Places,
  signal: AbortSignal,
): Promise<readonly Registered[]> {
  const ending = new LinkedAbort(signal);
  // Each port that is knocked at listens to it.
  setMaxListeners(0, ending.signal, signal);
  const commands = createSecretCommands({ clock: systemClock, signal: ending.signal });
  const credentials = createCredentialResolver(settings, { commands });
  const sameDirectory = createSameDirectory(realpath);
  const prober = new Prober<ProbeTarget>({
    clock: systemClock,
    slots: settings.healthConcurrency,
    deadlineMs: settings.healthCheckTimeoutMs,
    sameDirectory,
    resolveCredential: (candidate, until) => credentials.resolve(candidate, until),
    onOutcome: () => {},
  });
  const batch = prober.batch();
  ending.signal.addEventListener('abort', () => batch.end(), { once: true });
  try {
    return await Promise.all(
      candidates.map(async (candidate) => {
        if (candidate.trust.level === 'untrusted') {
          return { candidate, answer: { state: 'untrusted', reason: candidate.trust.reason } };
        }
        // Whatever answers is told, with its own directory.
        const { directory: claimed, ...claims } = candidate.claims;
        const outcome = await batch.look({ candidate: { ...candidate, claims }, standing: 'fresh' }, { parts: [] });
        return registered(candidate, claimed, outcome, sameDirectory, ending.signal);
      }),
    );
  } finally {
    ending.end();
    prober.close();
  }
}

async function registered(
  candidate: Candidate,
  claimed: string | undefined,
  outcome: ProbeOutcome | undefined,
  sameDirectory: SameDirectory,
  signal: AbortSignal,
): Promise<Registered> {
  const { endpoint } = candidate;
  const result = outcome?.result;
  if (outcome === undefined || result === undefined)
    return { candidate, answer: { state: 'silent', reason: 'interrupted' } };
  if (result.status === 'locked' || result.status === 'unsupported')
    return { candidate, answer: { state: result.status, reason: result.reason } };
  if (result.status === 'unhealthy') {
    if (outcome.timedOut) return { candidate, answer: { state: 'silent', reason: result.reason } };
    const isClosed = result.reason.endsWith(': ECONNREFUSED');
    const reason = isClosed ? `nothing listens at ${endpoint.url}` : result.reason;
    return { candidate, answer: { state: isClosed ? 'refused' : 'failed', reason } };
  }
  const { version } = result;
  const directory = singleLine(result.directory, MAX_DIRECTORY_CHARS);
  const sameMachine = endpoint.route === 'loopback';
  if (claimed === undefined || (await sameDirectory(claimed, result.directory, { sameMachine, signal }))) {
    return {
      candidate,
      answer: { state: 'healthy', version, directory },
      connection: outcome.connection,
      ownDirectory: result.directory,
    };
  }
  const reason = `another instance answers here: registered for ${quoteName(singleLine(claimed, MAX_REASON_CHARS))}`;
  return { candidate, answer: { state: 'other', version, directory, reason } };
}
