import { checkSecret, type ConfigContext, type ConfigSecret } from './config-secret.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { SecretRef } from './secret-ref.ts';

// Node takes 16 KiB for all headers of a request together.
const MAX_VALUE_CHARACTERS = 8192;

/** Headers that cannot be configured, with the reason. */
const FORBIDDEN = new Map([
  ['host', 'it follows from the URL'],
  ...['content-length', 'connection', 'transfer-encoding', 'keep-alive', 'upgrade', 'expect'].map(
    (name) => [name, 'the HTTP client sets it'] as const,
  ),
  ...['origin', 'referer'].map((name) => [name, 'it would make a request look like one of a web page'] as const),
]);

/** A header's value, or a reference that is resolved before each request. */
export type HeaderValue = string | SecretRef;

/**
 * Checks the headers of one instance. Typical are the tokens of an access proxy, such as Cloudflare Access:
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
      nameProblem(name, hasPassword) ?? (seen.has(name.toLowerCase()) ? 'the header is given twice' : undefined);
    // The name may be a whole header line ("X-Token: abc"): only its first word is shown.
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
    // An invalid value from the environment locks the instance, like one from a file.
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
  // opencode reads directories from these headers and executes code in a named directory.
  if (lower.startsWith('x-opencode-')) return 'this header cannot be set: it controls opencode';
  return undefined;
}

/** Why `value` cannot be sent in a header; contains nothing of the value. */
export function headerValueProblem(value: string): string | undefined {
  if (value.length > MAX_VALUE_CHARACTERS)
    return `expected at most ${MAX_VALUE_CHARACTERS} characters, got ${value.length}`;
  // The rule of fetch: Latin-1 without control characters other than tab.
  return /^[\t\x20-\x7e\x80-\xff]+$/.test(value)
    ? undefined
    : 'expected a header value without line breaks, control characters or characters beyond Latin-1';
}
