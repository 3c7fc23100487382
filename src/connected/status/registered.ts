import { realpath } from 'node:fs/promises';

import { systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { silentLogger } from '../../base/log.ts';
import { quoteName } from '../../base/plain-text.ts';
import { createRegistrySource, registryOptionsOf } from '../../discovery/registry/registry.ts';
import { createServiceSource } from '../../discovery/service/service.ts';
import { SourceUnavailableError } from '../../discovery/source.ts';
import { systemDependencies } from '../../discovery/sources.ts';
import type { Connection } from '../../http/exchange.ts';
import type { Candidate, Note } from '../../model/candidate.ts';
import { endpointKey } from '../../model/endpoint-key.ts';
import { type Dialect, OVERVIEW_PARTS, type Overview } from '../../model/instance.ts';
import { updateOverview } from '../../probing/overview.ts';
import type { ProbeOutcome } from '../../probing/prober.ts';
import { createSameDirectory, type SameDirectory } from '../../probing/same-directory.ts';
import { askCandidates } from '../ask-candidates.ts';
import { shown } from '../shown.ts';
import type { Places } from './places.ts';

/** What answers on a registration's port now. Text is safe to show. */
export type PortAnswer =
  | { readonly state: 'healthy'; readonly version: string; readonly directory: string }
  /** Another instance than the registered one. */
  | { readonly state: 'other'; readonly version: string; readonly directory: string; readonly reason: string }
  | {
      /**
       * `locked`: it refuses our password, or needs one; `refused`: nothing listens; `silent`: something listens but does not answer;
       * `failed`: it answers, but not as opencode does; `untrusted`: not asked, since others can write the registration.
       */
      readonly state: 'locked' | 'refused' | 'silent' | 'unsupported' | 'failed' | 'untrusted';
      readonly reason: string;
    };

/** A registration on this machine, and the answer on its port. */
export interface Registered {
  readonly candidate: Candidate;
  readonly answer: PortAnswer;
  /** Only for a healthy one. */
  readonly reached?: {
    readonly dialect: Dialect;
    /** With the password that it accepts. */
    readonly connection: Connection;
    /** Unchanged from its own `/path`: the only directory that may go into a request. Empty for OpenCode 2. */
    readonly directory: string;
  };
  /** Its state in its own directory. Only for a healthy one that gave it. */
  readonly overview?: Overview | undefined;
}

export interface RegisteredHere {
  readonly registered: readonly Registered[];
  readonly notes: readonly Note[];
  /** Why the directory could not be read. Absent if it does not exist: then nothing is registered. */
  readonly problem?: string;
}

/** Reads this machine's registry directory as `opencode-mcp` does, and probes each port. Never rejects. */
export async function askRegistered(settings: Places, signal: AbortSignal): Promise<RegisteredHere> {
  const source = createRegistrySource(registryOptionsOf(settings), systemDependencies(silentLogger));
  try {
    const { candidates, notes } = await source.scan(signal);
    return { registered: await askAll(candidates, settings, signal), notes };
  } catch (error) {
    const isMissing = error instanceof SourceUnavailableError;
    return { registered: [], notes: [], ...(!isMissing && { problem: messageOf(error) }) };
  } finally {
    await source.close();
  }
}

async function askAll(
  files: readonly Candidate[],
  settings: Places,
  signal: AbortSignal,
): Promise<readonly Registered[]> {
  const services = await ownServices(settings, signal);
  const candidates = files.map((one) => asService(one, services));
  const trusted = candidates.filter(({ trust }) => trust.level === 'trusted');
  // Without the claimed directory: whatever answers is listed, with its own directory.
  const unclaimed = trusted.map((one) => {
    const { directory: _, ...claims } = one.claims;
    return { ...one, claims };
  });
  const outcomes = await askCandidates(unclaimed, settings, signal);
  const outcomeOf = new Map(trusted.map((one, index) => [one, outcomes[index]]));
  const sameDirectory = createSameDirectory(realpath);
  return await Promise.all(
    candidates.map(async (candidate): Promise<Registered> => {
      if (candidate.trust.level === 'untrusted')
        return { candidate, answer: { state: 'untrusted', reason: candidate.trust.reason } };
      return { candidate, ...(await answerOf(candidate, outcomeOf.get(candidate), { sameDirectory, signal })) };
    }),
  );
}

/** Adds the overview of each healthy instance. Never rejects. */
export async function withOverviews(
  registered: readonly Registered[],
  settings: Places,
  signal: AbortSignal,
): Promise<readonly Registered[]> {
  const healthy = registered.filter(({ answer }) => answer.state === 'healthy');
  const candidates = healthy.map(({ candidate }) => candidate);
  const outcomes = await askCandidates(candidates, settings, signal, OVERVIEW_PARTS);
  const overviews = new Map(
    healthy.map((one, index) => {
      const { learnt = {}, missing = [] } = outcomes[index] ?? {};
      return [one, updateOverview(undefined, learnt, missing, systemClock.now())?.overview] as const;
    }),
  );
  return registered.map((one) => {
    const overview = overviews.get(one);
    return overview === undefined ? one : { ...one, overview };
  });
}

/** This user's own OpenCode 2 services, by endpoint. */
async function ownServices(
  { opencodeStateDir: directory }: Places,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Candidate>> {
  const source = createServiceSource({ directory }, systemDependencies(silentLogger));
  try {
    const { candidates } = await source.scan(signal);
    return new Map(candidates.map((candidate) => [endpointKey(candidate.endpoint), candidate]));
  } catch {
    return new Map();
  } finally {
    await source.close();
  }
}

/** Adds the password from the service's own file: a service's registration has none. */
function asService(candidate: Candidate, services: ReadonlyMap<string, Candidate>): Candidate {
  const service = services.get(endpointKey(candidate.endpoint));
  if (service === undefined || candidate.trust.level === 'untrusted') return candidate;
  const { endpoint, claims, trust, credential } = service;
  return {
    ...candidate,
    endpoint,
    claims: { ...claims, ...candidate.claims },
    trust,
    ...(credential !== undefined && { credential }),
  };
}

async function answerOf(
  { endpoint, claims: { directory: claimed } }: Candidate,
  outcome: ProbeOutcome | undefined,
  { sameDirectory, signal }: { readonly sameDirectory: SameDirectory; readonly signal: AbortSignal },
): Promise<Omit<Registered, 'candidate'>> {
  const result = outcome?.result;
  if (outcome === undefined || result === undefined) return { answer: { state: 'silent', reason: 'interrupted' } };
  if (result.status === 'locked' || result.status === 'unsupported')
    return { answer: { state: result.status, reason: result.reason } };
  if (result.status === 'unhealthy') {
    if (outcome.timedOut) return { answer: { state: 'silent', reason: result.reason } };
    if (result.reason.endsWith(': ECONNREFUSED'))
      return { answer: { state: 'refused', reason: `nothing listens at ${endpoint.url}` } };
    return { answer: { state: 'failed', reason: result.reason } };
  }
  const { version, dialect, directory } = result;
  const about = { version, directory: shown(directory) };
  const sameMachine = endpoint.route === 'loopback';
  if (claimed === undefined || (await sameDirectory(claimed, directory, { sameMachine, signal }))) {
    const { connection } = outcome;
    return { answer: { state: 'healthy', ...about }, reached: { dialect, connection, directory } };
  }
  const reason = `another instance answers here: registered for ${quoteName(shown(claimed))}`;
  return { answer: { state: 'other', ...about, reason } };
}
