import { singleLine } from '../base/plain-text.ts';
import { suspects } from '../identity/suspects.ts';
import { endpointKey } from '../model/endpoint-key.ts';
import type { Instance, ProbedEndpoint, ProbeResult, Snapshot } from '../model/instance.ts';
import { type Advice, check, type Check, type EndpointFacts, type CheckVerdict } from './report.ts';

const MAX_URL_CHARS = 120;
const MAX_VERSION_CHARS = 40;

/** The words of `list`. */
const STATES: Readonly<Record<ProbeResult['status'], string>> = {
  healthy: 'healthy',
  locked: 'locked',
  unsupported: 'unsupported',
  unhealthy: 'offline',
  unknown: 'unknown',
  untrusted: 'untrusted',
};

/** By endpoint id: the names of other instances that it may belong to, which is not proven. */
export type Suspected = ReadonlyMap<string, readonly string[]>;

export function suspectedIn({ instances }: Snapshot, nowMs: number): Suspected {
  const nameOf = new Map(
    instances.flatMap(({ name, key, server }) =>
      key === server.key ? server.endpoints.map(({ id }) => [id, name] as const) : [],
    ),
  );
  const all = new Map(instances.flatMap(({ server }) => server.endpoints.map((one) => [one.id, one] as const)));
  const found = new Map<string, string[]>();
  for (const { endpoints } of suspects([...all.values()], nowMs)) {
    const [one, other] = endpoints.map(({ id }) => nameOf.get(id));
    if (one === undefined || other === undefined || one === other) continue;
    for (const [{ id }, name] of [[endpoints[0], other] as const, [endpoints[1], one] as const])
      found.set(id, [...(found.get(id) ?? []), name]);
  }
  return found;
}

/** One endpoint of an instance: what answered, how fast, which opencode it is, and whether its password was sent. */
export function endpointCheck(
  probed: ProbedEndpoint,
  { server: { endpoints } }: Instance,
  { suspected, advice }: { readonly suspected: Suspected; readonly advice: Advice | undefined },
): Check {
  const { candidate, result, latencyMs, passwordFrom } = probed;
  const { url, route } = candidate.endpoint;
  const others = suspected.get(probed.id) ?? [];
  const addresses = new Set(endpoints.map((one) => endpointKey(one.candidate.endpoint)));
  const identity = others.length > 0 ? 'suspected' : addresses.size > 1 ? 'proven' : 'only';
  const seen = result.status === 'healthy' || result.status === 'unsupported' ? result : undefined;
  const facts: EndpointFacts = {
    url: singleLine(url, MAX_URL_CHARS),
    route,
    source: candidate.source,
    state: STATES[result.status],
    identity,
    password: passwordOf(probed),
    ...(latencyMs !== undefined && { latency_ms: latencyMs }),
    ...(seen !== undefined && { version: singleLine(seen.version, MAX_VERSION_CHARS) }),
    ...(result.status === 'healthy' && { dialect: result.dialect }),
    ...(passwordFrom !== undefined && { password_from: passwordFrom }),
  };
  const parts = [
    facts.state + ('reason' in result ? `: ${result.reason}` : ''),
    result.status === 'healthy' && latencyMs !== undefined ? `${latencyMs} ms` : '',
    result.status === 'healthy' ? `${result.dialect} ${facts.version}` : '',
    `source ${candidate.source}`,
    identity === 'proven' ? 'proven the same' : '',
    others.length > 0 ? `may be ${others.join(', ')}, not proven` : '',
    passwordText(facts),
  ];
  const isUp = endpoints.some((one) => one.result.status === 'healthy');
  const verdict = verdictOf(probed, isUp, others.length > 0);
  return {
    ...check(verdict, `${route} ${facts.url}`, parts.filter((part) => part !== '').join(' · '), { advice }),
    endpoint: facts,
  };
}

function verdictOf({ result }: ProbedEndpoint, isUp: boolean, isSuspected: boolean): CheckVerdict {
  if (result.status === 'healthy') return isSuspected ? 'warn' : 'ok';
  if (result.status === 'unknown') return 'warn';
  return isUp ? 'warn' : 'broken';
}

function passwordOf({ result, passwordFrom }: ProbedEndpoint): EndpointFacts['password'] {
  if (result.status === 'locked') {
    if (result.isWithheld === true) return 'withheld';
    return passwordFrom === undefined ? 'not found' : 'refused';
  }
  const isUp = result.status === 'healthy';
  if (passwordFrom !== undefined) return isUp ? 'sent' : 'known';
  return isUp ? 'not asked for' : 'unknown';
}

function passwordText({ password, password_from: from }: EndpointFacts): string {
  if (password === 'unknown') return '';
  return from === undefined ? `password ${password}` : `password ${password}, from ${from}`;
}
