import { isExactPattern, matchesPattern } from '../config/pattern.ts';
import type { CredentialRule, Settings } from '../config/settings.ts';
import type { CredentialRef } from '../config/file/secret-ref.ts';
import { headerValueProblem } from '../config/file/instance-headers.ts';
import type { Credential } from '../http/exchange.ts';
import type { Candidate, Endpoint, Route } from '../model/candidate.ts';
import { originOf, readSecret, type SecretDeps } from './secret.ts';
import { messageOf } from '../base/errors.ts';
import { urlHost } from '../base/urls.ts';

export interface CredentialResolver {
  /** The credential for a candidate, or undefined if it gets none. Rejects if it cannot be read. */
  resolve(candidate: Candidate, signal: AbortSignal): Promise<Credential | undefined>;
  /** The endpoint with all headers as text. Rejects if one cannot be read, and names it. */
  withHeaders(endpoint: Endpoint, signal: AbortSignal): Promise<Endpoint>;
}

// opencode's own default.
const DEFAULT_USERNAME = 'opencode';

/** Routes that stay on this machine, or whose far end is authenticated by the tailnet or by SSH. */
const DEFAULT_ROUTES: ReadonlySet<Route> = new Set(['loopback', 'tailnet', 'relay']);

/**
 * Selects an endpoint's credential: the candidate's own, then the first matching rule, then the default. In doubt it gets none,
 * because a password cannot be taken back.
 */
export function createCredentialResolver(
  settings: Pick<Settings, 'credentialRules' | 'defaultCredential'>,
  deps: SecretDeps,
): CredentialResolver {
  return {
    async resolve(candidate, signal) {
      for (const ref of entitled(candidate, settings)) {
        const password = await readSecret(ref.password, deps, signal);
        // Only the service source has passwords as text.
        const isItsOwn = ref === candidate.credential && ref.password.kind === 'value';
        const from = isItsOwn ? "the service's own file" : originOf(ref.password);
        if (password !== undefined) return { username: ref.username ?? DEFAULT_USERNAME, password, from };
      }
      return undefined;
    },
    async withHeaders(endpoint, signal) {
      const headers: Record<string, string> = {};
      for (const [name, value] of Object.entries(endpoint.headers ?? {})) {
        try {
          headers[name] = typeof value === 'string' ? value : ((await readSecret(value, deps, signal)) ?? '');
          const problem = headerValueProblem(headers[name]);
          if (problem !== undefined) throw new Error(problem);
        } catch (error) {
          throw new Error(`header ${name}: ${messageOf(error)}`, { cause: error });
        }
      }
      return { ...endpoint, headers };
    },
  };
}

/** The credentials to try, best first; a later one is used only if an earlier one's optional file is missing. */
function entitled(
  candidate: Candidate,
  settings: Pick<Settings, 'credentialRules' | 'defaultCredential'>,
): CredentialRef[] {
  const { endpoint, trust } = candidate;
  if (trust.level !== 'trusted') return [];
  // The configured header is used instead: a request has one Authorization header.
  if (Object.keys(endpoint.headers ?? {}).some((name) => name.toLowerCase() === 'authorization')) return [];
  const advertised = candidate.source === 'mdns' || endpoint.route === 'lan';
  const fits = advertised ? namesAdvertised : matchesRule;
  const own = advertised ? undefined : candidate.credential;
  const rule = settings.credentialRules.find((one) => fits(one, candidate));
  const fallback = !advertised && DEFAULT_ROUTES.has(endpoint.route) ? settings.defaultCredential : undefined;
  return [own, rule?.credential, fallback].filter((ref) => ref !== undefined);
}

/** Anyone on the LAN can advertise anything, so a rule must name the source and the instance exactly. */
function namesAdvertised(rule: CredentialRule, candidate: Candidate): boolean {
  const { name, host, source } = rule;
  if (source === undefined || (name === undefined && host === undefined)) return false;
  return (
    [name, host, source].every((pattern) => pattern === undefined || isExactPattern(pattern)) &&
    matchesRule(rule, candidate)
  );
}

function matchesRule(rule: CredentialRule, candidate: Candidate): boolean {
  const { name, host, source } = rule;
  if (name === undefined && host === undefined && source === undefined) return false;
  return (
    matchesAny(name, [candidate.claims.name]) &&
    matchesAny(host, hostsOf(candidate)) &&
    matchesAny(source, [candidate.source])
  );
}

function matchesAny(pattern: string | undefined, texts: readonly (string | undefined)[]): boolean {
  return pattern === undefined || texts.some((text) => text !== undefined && matchesPattern(pattern, text));
}

/** The claimed host name, and the host in the URL, unless that is our end of a relay's tunnel. */
function hostsOf({ claims, endpoint }: Candidate): (string | undefined)[] {
  if (endpoint.route === 'relay' || !URL.canParse(endpoint.url)) return [claims.hostname];
  return [claims.hostname, urlHost(endpoint.url)];
}
