import * as z from 'zod';
import { checkSecret, configSecretSchema, type ConfigContext } from './config-secret.ts';
import { checkHeaders } from './instance-headers.ts';
import { checkInstanceUrl, withoutSecrets } from './instance-url.ts';
import { OPTIONS } from '../options.ts';
import { isExactPattern, matchesPattern } from '../pattern.ts';
import { hasUnsafeCharacters, quote } from '../quote.ts';
import { APPROVERS, SOURCE_NAMES, type ApprovalRule, type CredentialRule, type StaticInstance } from '../settings.ts';
import { parseShape } from './shape.ts';
import type { CredentialRef } from './secret-ref.ts';

const MAX_NAME_CHARACTERS = 64;
// The longest DNS name has 253.
const MAX_PATTERN_CHARACTERS = 256;

/** The `credentials` of the config file. */
export function checkCredentialRules(raw: unknown, where: string, context: ConfigContext): CredentialRule[] {
  const text = z.string({ error: 'a string' }).exactOptional();
  const schema = z.strictObject(
    { name: text, host: text, source: text, username: text, password: configSecretSchema() },
    { error: 'an object' },
  );
  return entries(raw, where, context, (entry, place) => {
    const rule = parseShape(schema, entry, place, context.problems);
    if (rule === undefined) return undefined;
    const { username, password, ...patterns } = rule;
    checkPatterns(patterns, place, context);
    const credential = checkCredential(username, password, place, context);
    return credential && { ...patterns, credential };
  });
}

/** The `approvals` of the config file. */
export function checkApprovalRules(raw: unknown, where: string, context: ConfigContext): ApprovalRule[] {
  const pattern = z.string({ error: 'a string' }).exactOptional();
  const approve = z.enum(APPROVERS, { error: `one of ${APPROVERS.join(', ')}` });
  const schema = z.strictObject({ instance: pattern, permission: pattern, pattern, approve }, { error: 'an object' });
  return entries(raw, where, context, (entry, place) => {
    const rule = parseShape(schema, entry, place, context.problems);
    if (rule === undefined) return undefined;
    const { approve: _, ...patterns } = rule;
    checkTexts(patterns, place, context);
    return rule;
  });
}

export function checkTexts(
  patterns: Readonly<Record<string, string>>,
  where: string,
  { problems }: ConfigContext,
): void {
  for (const [key, pattern] of Object.entries(patterns)) {
    if (pattern === '' || pattern.length > MAX_PATTERN_CHARACTERS || hasUnsafeCharacters(pattern))
      problems.push(
        `${where}.${key}: expected 1 to ${MAX_PATTERN_CHARACTERS} characters, none of them control or invisible, got ${quote(pattern)}`,
      );
  }
}

function checkPatterns(
  patterns: Readonly<Partial<Record<'name' | 'host' | 'source', string>>>,
  where: string,
  context: ConfigContext,
): void {
  const { problems } = context;
  const { name, host, source } = patterns;
  checkTexts(patterns, where, context);
  if (name === undefined && host === undefined && source === undefined)
    problems.push(
      `${where}: expected at least one of name, host and source; for a password that fits everywhere use the key "password"`,
    );
  if (source === undefined) return;
  const sources = SOURCE_NAMES.filter((known) => matchesPattern(source, known));
  if (sources.length === 0)
    problems.push(
      `${where}.source: expected a pattern that fits one of ${SOURCE_NAMES.join(', ')}, got ${quote(source)}`,
    );
  // Such a rule would silently never apply: see credentials/resolver.ts.
  const named = [name, host].filter((pattern) => pattern !== undefined);
  if (source.toLowerCase() === 'mdns' && (named.length === 0 || !named.every(isExactPattern)))
    problems.push(
      `${where}: a rule for mdns needs the exact name or host, without *: anyone on the LAN can advertise anything`,
    );
}

/** The `instances` of the config file. */
export function checkInstances(raw: unknown, where: string, context: ConfigContext): StaticInstance[] {
  const text = z.string({ error: 'a string' });
  const secret = configSecretSchema();
  const schema = z.strictObject(
    {
      name: text,
      url: text,
      headers: z.record(z.string(), secret, { error: 'an object of header names and secrets' }).optional(),
      username: text.optional(),
      password: secret.optional(),
    },
    { error: 'an object' },
  );
  const names = new Set<string>();
  return entries(raw, where, context, (entry, place) => {
    const instance = parseShape(schema, entry, place, context.problems);
    if (instance === undefined) return undefined;
    const { name, password, username } = instance;
    checkName(name, names, `${place}.name`, context);
    const headers = checkHeaders(instance.headers ?? {}, password !== undefined, `${place}.headers`, context);
    if (password === undefined && username !== undefined)
      context.problems.push(`${place}.username: expected a password beside it`);
    const credential = password === undefined ? undefined : checkCredential(username, password, place, context);
    const checked = checkInstanceUrl(instance.url);
    if ('problem' in checked) {
      context.problems.push(`${place}.url: ${checked.problem}; got ${quote(withoutSecrets(instance.url))}`);
      return undefined;
    }
    if (checked.isExposed && (password !== undefined || Object.keys(headers).length > 0))
      context.warnings.push(
        `${place}.url: sends ${password === undefined ? 'headers' : 'a password'} over plain http to another machine; use https unless the network between is encrypted`,
      );
    return { name, url: checked.url, headers, credential };
  });
}

function checkName(name: string, names: Set<string>, where: string, { problems }: ConfigContext): void {
  if (name === '' || name.length > MAX_NAME_CHARACTERS || hasUnsafeCharacters(name) || name.trim() !== name)
    problems.push(
      `${where}: expected 1 to ${MAX_NAME_CHARACTERS} characters, no control or invisible ones, no leading or trailing spaces, got ${quote(name)}`,
    );
  else if (names.has(name)) problems.push(`${where}: expected a unique name, got ${quote(name)} a second time`);
  names.add(name);
}

function checkCredential(
  username: string | undefined,
  password: Parameters<typeof checkSecret>[0],
  where: string,
  context: ConfigContext,
): CredentialRef | undefined {
  const { kind } = OPTIONS.username;
  if (username !== undefined && kind.parse(username) === undefined)
    context.problems.push(`${where}.username: expected ${kind.expected}, got ${quote(username)}`);
  const ref = checkSecret(password, `${where}.password`, context);
  return ref && { username, password: ref };
}

/** Checks each entry of an array on its own, so that one mistake does not hide the next. */
export function entries<T>(
  raw: unknown,
  where: string,
  context: ConfigContext,
  check: (entry: unknown, place: string) => T | undefined,
): T[] {
  const list = parseShape(z.array(z.unknown(), { error: 'an array' }), raw, where, context.problems) ?? [];
  return list.flatMap((entry, index) => check(entry, `${where}[${index}]`) ?? []);
}
