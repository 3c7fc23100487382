import type { Candidate, Claims, Endpoint } from '../../src/model/candidate.ts';
import type { Healthy } from '../../src/probing/probe-task.ts';
import type { ProbedEndpoint, ProbeResult } from '../../src/model/instance.ts';

type CandidateFields = Partial<Omit<Candidate, 'claims' | 'endpoint'>> & {
  readonly url?: string;
  readonly route?: Endpoint['route'];
  readonly headers?: Endpoint['headers'];
  readonly claims?: Claims;
};

/** A trusted loopback candidate of the source `test`, with `fields` overriding the defaults. */
export function candidate({ url, route, headers, ...fields }: CandidateFields = {}): Candidate {
  return {
    source: 'test',
    key: 'one',
    endpoint: {
      url: url ?? 'http://127.0.0.1:4096',
      route: route ?? 'loopback',
      ...(headers === undefined ? {} : { headers }),
    },
    claims: {},
    trust: { level: 'trusted' },
    ...fields,
  };
}

export const HEALTHY: Healthy = {
  status: 'healthy',
  dialect: 'opencode-1',
  version: '1.18.33',
  directory: '/home/user/a',
  worktree: '/',
};
export const DEAD = { status: 'unhealthy', reason: 'ECONNREFUSED' } as const;

/** A probed endpoint with the id `test:<key>`. */
export function probed(
  fields: CandidateFields & { readonly result?: ProbeResult; readonly latencyMs?: number },
): ProbedEndpoint {
  const { result = HEALTHY, latencyMs, ...rest } = fields;
  const overridden = candidate(rest);
  return {
    id: `${overridden.source}:${overridden.key}`,
    candidate: overridden,
    result,
    misses: 0,
    ...(latencyMs === undefined ? {} : { latencyMs }),
    ...(result.status === 'healthy' ? { lastHealthy: result } : {}),
  };
}
