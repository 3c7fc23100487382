import { shellWord } from '../../base/plain-text.ts';
import { dirname } from 'node:path';
import * as z from 'zod';
import type { CheckConfig } from './config-file.ts';
import { checkApprovalRules, checkCredentialRules, checkInstances } from './config-lists.ts';
import { checkSecret, configSecretSchema, type ConfigContext } from './config-secret.ts';
import { APPROVALS, CREDENTIALS, INSTANCES, NOTIFY, OPTIONS, PASSWORD, ROWS } from '../options.ts';
import { quote, shownPath } from '../quote.ts';
import { checkNotify } from './notify-channels.ts';
import { parseShape } from './shape.ts';

/** Loaded where there is a config file: that is seldom, and what checks it is large. */
export const checkConfig: CheckConfig = (json, { path, mode }, input) => {
  const shownName = shownPath(path);
  const { problems, warnings } = input;
  let hasPlainSecret = false;
  const context: ConfigContext = { ...input, folder: dirname(path), plainSecret: () => void (hasPlainSecret = true) };
  const keys = ROWS.flatMap(({ key }) => key ?? []);
  const shape = z.strictObject(Object.fromEntries(keys.map((key) => [key, z.unknown().optional()])), {
    error: 'an object',
  });
  const raw = parseShape(shape, json, `${shownName}: `, problems);
  if (raw === undefined) return undefined;

  for (const { key, kind } of Object.values(OPTIONS)) {
    if (key === undefined || raw[key] === undefined || kind.parse(raw[key]) !== undefined) continue;
    problems.push(`${shownName}: ${key}: expected ${kind.expected}, got ${shown(raw[key])}`);
  }
  const at = (key: string): string => `${shownName}: ${key}`;
  const secret =
    raw[PASSWORD.key] === undefined
      ? undefined
      : parseShape(configSecretSchema(), raw[PASSWORD.key], at(PASSWORD.key), problems);
  const password = secret === undefined ? undefined : checkSecret(secret, at(PASSWORD.key), context);
  const credentialRules = checkCredentialRules(raw[CREDENTIALS.key] ?? [], at(CREDENTIALS.key), context);
  const instances = checkInstances(raw[INSTANCES.key] ?? [], at(INSTANCES.key), context);
  const approvalRules = checkApprovalRules(raw[APPROVALS.key] ?? [], at(APPROVALS.key), context);
  const notify = checkNotify(raw[NOTIFY.key], at(NOTIFY.key), context);

  warnings.push(...modeWarnings(shownName, mode ?? 0, hasPlainSecret));
  return {
    folder: context.folder,
    values: raw,
    credentialRules,
    instances,
    approvalRules,
    ...(password && { password }),
    ...(notify && { notify }),
  };
};

function modeWarnings(shownName: string, mode: number, hasPlainSecret: boolean): string[] {
  const octal = mode.toString(8).padStart(4, '0');
  if ((mode & 0o022) !== 0)
    return [
      `${shownName}: other users can change it, and it can name commands to run (mode ${octal}); run: chmod 600 ${shellWord(shownName)}`,
    ];
  if (hasPlainSecret && (mode & 0o077) !== 0)
    return [
      `${shownName}: holds a secret, and other users can read it (mode ${octal}); run: chmod 600 ${shellWord(shownName)}`,
    ];
  return [];
}

/** A plain option's value in an error. None of them is a secret, but one may lie in an object that is out of place. */
function shown(value: unknown): string {
  if (typeof value === 'string') return quote(value);
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return String(value);
  if (!Array.isArray(value)) return 'an object';
  return value.every((item) => typeof item === 'string') ? quote(value.join(',')) : 'an array of other things';
}
