import { checkSecret, type ConfigContext, type ConfigSecret } from './config-secret.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { SecretRef } from './secret-ref.ts';

// Node takes 16 KiB for all headers of a request together.
const MAX_VALUE_CHARACTERS = 8192;

/** Headers that are not a person's to set, with the reason. */
const FORBIDDEN = new Map([
  ['host', 'it follows from the URL'],
  ...['content-length', 'connection', 'transfer-encoding', 'keep-alive', 'upgrade', 'expect'].map(
    (name) => [name, 'the HTTP client sets it by itself'] as const,
  ),
  ...['origin', 'referer'].map((name) => [name, 'it would make a request look like one of a web page'] as const),
]);

/** A header's value, or where it is found when the instance is asked. */
export type HeaderValue = string | SecretRef;

/**
 * Checks the headers of one instance. The typical use is an access proxy, such as a Cloudflare Access service token:
 * `{"CF-Access-Client-Id": "….access", "CF-Access-Client-Secret": {"file": "cf-secret"}}`.
 */
export function checkHeaders(
  headers: Readonly<Record<string, ConfigSecret>>,
  hasPassword: boolean,
  where: string,
  context: ConfigContext,
): Record<string, HeaderValue> {
  const checked = new Map<string, HeaderValue>();
  const seen = new Set<string>();
  for (const [name, secret] of Object.entries(headers)) {
    const problem =
      nameProblem(name, hasPassword) ?? (seen.has(name.toLowerCase()) ? 'the header is there twice' : undefined);
    // A whole header line may stand in place of the name ("X-Token: abc"): only what can be a name is shown.
    const place = `${where}.${singleLine(/^[\w-]*/.exec(name)?.[0] ?? '', 80)}`;
    seen.add(name.toLowerCase());
    if (problem !== undefined) {
      context.problems.push(`${place}: ${problem}`);
      continue;
    }
    const ref = checkSecret(secret, place, context);
    if (ref === undefined) continue;
    const badValue = ref.kind === 'value' ? headerValueProblem(ref.value) : undefined;
    if (badValue !== undefined && typeof secret === 'string') context.problems.push(`${place}: ${badValue}`);
    // What the environment has wrong locks the instance, as what a file has does.
    else checked.set(name, ref.kind === 'value' && badValue === undefined ? ref.value : ref);
  }
  return Object.fromEntries(checked);
}

function nameProblem(name: string, hasPassword: boolean): string | undefined {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name))
    return "expected a header name: letters, digits and !#$%&'*+.^_`|~- only";
  const lower = name.toLowerCase();
  const reason = FORBIDDEN.get(lower);
  if (reason !== undefined) return `this header cannot be set: ${reason}`;
  if (lower === 'authorization' && hasPassword)
    return 'expected either this header or a password: both make the Authorization header';
  // opencode takes directories from its own headers, and runs what lies in a directory it is asked about.
  if (lower.startsWith('x-opencode-')) return 'this header cannot be set: opencode takes orders from it';
  return undefined;
}

/** What no header can carry; nothing of the value is in it. */
export function headerValueProblem(value: string): string | undefined {
  if (value.length > MAX_VALUE_CHARACTERS)
    return `expected at most ${MAX_VALUE_CHARACTERS} characters, got ${value.length}`;
  // What fetch takes: Latin-1, and no control character but the tab.
  return /^[\t\x20-\x7e\x80-\xff]+$/.test(value)
    ? undefined
    : 'expected a header value without line breaks, control characters or characters beyond Latin-1';
}
