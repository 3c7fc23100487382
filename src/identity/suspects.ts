import { endpointKey } from '../model/endpoint-key.ts';
import type { ProbedEndpoint } from '../model/instance.ts';
import { isHealthy, type KeyPair } from './merge.ts';
import { compare } from '../model/non-empty.ts';

/** Two endpoints with different addresses that may lead to one process. */
export interface Suspicion {
  readonly keys: KeyPair;
  readonly endpoints: readonly [ProbedEndpoint, ProbedEndpoint];
}

/** In a group of up to this many, every pair is suspected; in a larger one, only pairs with the first. Nobody has six endpoints of one instance. */
const MAX_FOR_ALL_PAIRS = 6;

/** How long after an overview its running turns count as still emitting events. */
const RUNS_MS = 5_000;

/** Each proof costs two requests; more pairs are a flood of advertisements. */
const MAX_SUSPICIONS = 1000;

/**
 * Pairs of healthy endpoints that are worth proving. OpenCode 1: the same instance id, or the same port and host name; never name, port
 * or sessions alone, which copies of an image share. OpenCode 2: the same process and version. The preview reports neither; there
 * the same session must be running, whose events prove it. Pure; the order of `probed` does not matter.
 */
export function suspects(probed: readonly ProbedEndpoint[], nowMs: number): readonly Suspicion[] {
  const byHint = new Map<string, Map<string, ProbedEndpoint>>();
  for (const endpoint of probed.filter(isHealthy).toSorted((one, other) => compare(one.id, other.id))) {
    const key = endpointKey(endpoint.candidate.endpoint);
    for (const hint of hintsOf(endpoint, nowMs)) {
      const group = byHint.get(hint) ?? new Map<string, ProbedEndpoint>();
      byHint.set(hint, group);
      group.set(key, endpoint);
    }
  }
  const found = new Map<string, Suspicion>();
  for (const group of byHint.values()) {
    for (const [[oneKey, one], [otherKey, other]] of pairsOf([...group])) {
      if (found.size >= MAX_SUSPICIONS) break;
      const ordered = compare(oneKey, otherKey) < 0;
      const keys: KeyPair = ordered ? [oneKey, otherKey] : [otherKey, oneKey];
      found.set(keys.join('\0'), { keys, endpoints: ordered ? [one, other] : [other, one] });
    }
  }
  return [...found.values()];
}

function hintsOf({ candidate: { claims }, result, overview }: ProbedEndpoint, nowMs: number): string[] {
  const hints: string[] = [];
  if (result.status !== 'healthy') return hints;
  const { dialect, pid, version } = result;
  if (dialect === 'opencode-2-preview') {
    const isNew = overview !== undefined && nowMs - overview.askedAtMs <= RUNS_MS;
    return isNew ? overview.running.map((session) => `runs\0${session}`) : hints;
  }
  if (dialect === 'opencode-2') return pid === undefined ? hints : [`process\0${pid}\0${version}`];
  if (claims.id !== undefined) hints.push(`id\0${claims.id}`);
  if (claims.localPort !== undefined && claims.hostname !== undefined)
    hints.push(`port\0${claims.localPort}\0${claims.hostname.toLowerCase()}`);
  return hints;
}

function* pairsOf<T>(items: readonly T[]): Generator<readonly [T, T]> {
  for (const [index, one] of items.entries()) {
    for (const other of items.slice(index + 1)) yield [one, other];
    if (items.length > MAX_FOR_ALL_PAIRS) return;
  }
}
