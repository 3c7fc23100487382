import { endpointKey } from '../model/endpoint-key.ts';
import type { ProbedEndpoint } from '../model/instance.ts';
import { isHealthy, type KeyPair } from './merge.ts';
import { compare } from '../model/non-empty.ts';

/** Two endpoints with different addresses that may lead to one process, best known way first. */
export interface Suspicion {
  readonly keys: KeyPair;
  readonly endpoints: readonly [ProbedEndpoint, ProbedEndpoint];
}

/** Up to this many, every pair is proven on its own; of more, each with the first. Nobody has six ways to one instance. */
const MAX_FOR_ALL_PAIRS = 6;

/** The turn was seen running recently enough that it may still emit events. */
const RUNS_MS = 5_000;

/** More is an attack by advertising: each proof costs two requests. */
const MAX_SUSPICIONS = 1000;

/**
 * The pairs worth proving: healthy, and with the same instance id, or the same port at a machine of the same name. Never
 * by name, port or sessions alone, which images and copied databases share. Of OpenCode 2 those that name the same process and
 * version; the preview names neither, so that those are taken in which the same session runs just now: what happens there is the
 * proof. Pure; the order of `probed` does not matter.
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
