import * as z from 'zod';
import { type ConfigContext, secretSchema } from './config-secret.ts';
import { headersSchema } from './instance-headers.ts';
import { urlSchema } from './instance-url.ts';
import { OPTIONS } from '../options.ts';
import { isExactPattern, matchesPattern } from '../pattern.ts';
import { quote } from '../quote.ts';
import { APPROVERS, SOURCE_NAMES, type ApprovalRule, type CredentialRule, type StaticInstance } from '../settings.ts';
import { entries, parseShape, part, pattern, text, uniqueName } from './shape.ts';

const username = text((value) => {
  const { kind } = OPTIONS.username;
  return kind.parse(value) === undefined ? `expected ${kind.expected}, got ${quote(value)}` : undefined;
});

/** The `credentials` of the config file. */
export function checkCredentialRules(raw: unknown, where: string, context: ConfigContext): CredentialRule[] {
  const schema = part({
    name: pattern.exactOptional(),
    host: pattern.exactOptional(),
    source: pattern.exactOptional(),
    username: username.exactOptional(),
    password: secretSchema(context),
  });
  return entries(raw, where, context.problems, (entry, place) => {
    const rule = parseShape(schema, entry, place, context.problems);
    if (rule === undefined) return undefined;
    const { username: user, password, ...patterns } = rule;
    const problem = ruleProblem(patterns);
    if (problem !== undefined) context.problems.push(place + problem);
    return { ...patterns, credential: { username: user, password } };
  });
}

function ruleProblem({ name, host, source }: Omit<CredentialRule, 'credential'>): string | undefined {
  if (name === undefined && host === undefined && source === undefined)
    return ': expected at least one of name, host and source; for a password that fits everywhere use the key "password"';
  if (source !== undefined && !SOURCE_NAMES.some((known) => matchesPattern(source, known)))
    return `.source: expected a pattern that fits one of ${SOURCE_NAMES.join(', ')}, got ${quote(source)}`;
  // Such a rule would silently never apply: see credentials/resolver.ts.
  const named = [name, host].filter((given) => given !== undefined);
  if (source?.toLowerCase() === 'mdns' && (named.length === 0 || !named.every(isExactPattern)))
    return ': a rule for mdns needs the exact name or host, without *: anyone on the LAN can advertise anything';
  return undefined;
}

/** The `approvals` of the config file. */
export function checkApprovalRules(raw: unknown, where: string, { problems }: ConfigContext): ApprovalRule[] {
  const schema = part({
    instance: pattern.exactOptional(),
    permission: pattern.exactOptional(),
    pattern: pattern.exactOptional(),
    approve: z.enum(APPROVERS, { error: `one of ${APPROVERS.join(', ')}` }),
  });
  return entries(raw, where, problems, (entry, place) => parseShape(schema, entry, place, problems));
}

/** The `instances` of the config file. */
export function checkInstances(raw: unknown, where: string, context: ConfigContext): StaticInstance[] {
  const { problems, warnings } = context;
  const schema = part({
    name: uniqueName(new Set()),
    url: urlSchema('use the keys "username" and "password"'),
    headers: headersSchema(context).default({}),
    username: username.exactOptional(),
    password: secretSchema(context).exactOptional(),
  });
  return entries(raw, where, problems, (entry, place) => {
    const instance = parseShape(schema, entry, place, problems);
    if (instance === undefined) return undefined;
    const { name, url, headers, username: user, password } = instance;
    const authorization = Object.keys(headers).find((header) => header.toLowerCase() === 'authorization');
    if (authorization !== undefined && password !== undefined)
      problems.push(
        `${place}.headers.${authorization}: expected either this header or a password: both make the Authorization header`,
      );
    if (password === undefined && user !== undefined) problems.push(`${place}.username: expected a password beside it`);
    if (url.isExposed && (password !== undefined || Object.keys(headers).length > 0))
      warnings.push(
        `${place}.url: sends ${password === undefined ? 'headers' : 'a password'} over plain http to another machine; use https unless the network between is encrypted`,
      );
    return { name, url: url.url, headers, credential: password && { username: user, password } };
  });
}
