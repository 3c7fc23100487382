import * as z from 'zod';
import { checkSecret, type ConfigContext, writtenSecret } from './config-secret.ts';
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
 * The headers of one instance. Typical are the tokens of an access proxy, such as Cloudflare Access:
 * `{"CF-Access-Client-Id": "….access", "CF-Access-Client-Secret": {"file": "cf-secret"}}`.
 */
export function headersSchema(context: ConfigContext): z.ZodType<Record<string, HeaderValue>> {
  const written = z.record(z.string(), writtenSecret(), { error: 'an object of header names and secrets' });
  return written.transform((headers, issues) => {
    const seen = new Set<string>();
    const checked = Object.entries(headers).flatMap(([name, secret]): [string, HeaderValue][] => {
      const fail = (message: string): [] => {
        issues.addIssue({ code: 'custom', path: [name], message });
        return [];
      };
      const problem = nameProblem(name) ?? (seen.has(name.toLowerCase()) ? 'the header is given twice' : undefined);
      seen.add(name.toLowerCase());
      if (problem !== undefined) return fail(problem);
      const ref = checkSecret(secret, context);
      if ('problem' in ref) return fail(ref.problem);
      if (ref.kind !== 'value') return [[name, ref]];
      const invalid = headerValueProblem(ref.value);
      if (invalid === undefined) return [[name, ref.value]];
      // An invalid value from the environment locks the instance, like one from a file.
      return typeof secret === 'string' ? fail(invalid) : [[name, ref]];
    });
    return Object.fromEntries(checked);
  });
}

function nameProblem(name: string): string | undefined {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name))
    return "expected a header name: letters, digits and !#$%&'*+.^_`|~- only";
  const lower = name.toLowerCase();
  const reason = FORBIDDEN.get(lower);
  if (reason !== undefined) return `this header cannot be set: ${reason}`;
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
