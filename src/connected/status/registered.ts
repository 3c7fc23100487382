import { realpath } from 'node:fs/promises';

import { systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { silentLogger } from '../../base/log.ts';
import { quoteName, singleLine } from '../../base/plain-text.ts';
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
import { type Places } from './places.ts';

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
  /** Of the generation that answers. Only for one that is healthy. */
  readonly dialect?: Dialect;
  /** With the password that fits. Only for one that is healthy. */
  readonly connection?: Connection;
  /** What it does in its own directory. Only for one that is healthy and told. */
  readonly overview?: Overview | undefined;
  /** As its own `/path` tells it, unchanged: the only one that may go into a request. Empty of OpenCode 2. Only for one that is healthy. */
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
  const services = await ownServices(settings, signal);
  const known = candidates.map((one) => {
    const candidate = asService(one, services);
    const { directory: claimed, ...claims } = candidate.claims;
    // Whatever answers is listed, with its own directory.
    return { candidate, claimed, asked: { ...candidate, claims } };
  });
  const trusted = known.flatMap(({ asked }) => (asked.trust.level === 'trusted' ? [asked] : []));
  const outcomes = await askCandidates(trusted, settings, signal);
  const outcomeOf = new Map(trusted.map((asked, index) => [asked, outcomes[index]]));
  const sameDirectory = createSameDirectory(realpath);
  return await Promise.all(
    known.map(async ({ candidate, claimed, asked }): Promise<Registered> =>
      candidate.trust.level === 'untrusted'
        ? { candidate, answer: { state: 'untrusted', reason: candidate.trust.reason } }
        : await registered({ candidate, claimed, outcome: outcomeOf.get(asked) }, sameDirectory, signal),
    ),
  );
}

/** The same, with what each healthy one does. Another instance than was registered is asked nothing more. Never rejects. */
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

/** This user's own OpenCode 2 services, by their address. */
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

/** The registration of a service holds no password: that stays in the service's own file. */
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

interface Asked {
  readonly candidate: Candidate;
  /** The directory for which it is registered. */
  readonly claimed: string | undefined;
  readonly outcome: ProbeOutcome | undefined;
}

async function registered(
  { candidate, claimed, outcome }: Asked,
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
  const { version, dialect } = result;
  const directory = singleLine(result.directory, MAX_DIRECTORY_CHARS);
  const sameMachine = endpoint.route === 'loopback';
  if (claimed === undefined || (await sameDirectory(claimed, result.directory, { sameMachine, signal }))) {
    return {
      candidate,
      answer: { state: 'healthy', version, directory },
      dialect,
      connection: outcome.connection,
      ownDirectory: result.directory,
    };
  }
  const reason = `another instance answers here: registered for ${quoteName(singleLine(claimed, MAX_REASON_CHARS))}`;
  return { candidate, answer: { state: 'other', version, directory, reason } };
}
