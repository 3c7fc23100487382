import { octalMode } from '../../base/errors.ts';
import { shellWord } from '../../base/plain-text.ts';
import { dirname } from 'node:path';
import * as z from 'zod';
import type { NotifySettings } from '../notify.ts';
import type { ApprovalRule, CredentialRule, StaticInstance } from '../settings.ts';
import type { ConfigText } from './config-file.ts';
import { checkApprovalRules, checkCredentialRules, checkInstances } from './config-lists.ts';
import { type ConfigContext, secretSchema } from './config-secret.ts';
import type { SecretRef } from './secret-ref.ts';
import { APPROVALS, CREDENTIALS, INSTANCES, NOTIFY, OPTIONS, PASSWORD, ROWS } from '../options.ts';
import { quote, shownPath } from '../quote.ts';
import { checkNotify } from './notify-channels.ts';
import { parseShape, part } from './shape.ts';

/** The checked content of the config file. */
export interface ConfigFile {
  /** Base of its relative paths. */
  readonly folder: string;
  /** By key, as written; those of the plain options are valid. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly password?: SecretRef;
  readonly credentialRules: readonly CredentialRule[];
  readonly instances: readonly StaticInstance[];
  readonly approvalRules: readonly ApprovalRule[];
  readonly notify?: NotifySettings;
}

/** Checks the config file. Adds to the problems and warnings in `input`. */
export function checkConfig(
  { json, path, mode }: ConfigText,
  input: Pick<ConfigContext, 'env' | 'home' | 'problems' | 'warnings'>,
): ConfigFile | undefined {
  const shownName = shownPath(path);
  const { problems, warnings } = input;
  let hasPlainSecret = false;
  const context: ConfigContext = { ...input, folder: dirname(path), plainSecret: () => void (hasPlainSecret = true) };
  const keys = ROWS.flatMap(({ key }) => key ?? []);
  const shape = part(Object.fromEntries(keys.map((key) => [key, z.unknown().optional()])));
  const raw = parseShape(shape, json, `${shownName}: `, problems);
  if (raw === undefined) return undefined;

  for (const { key, kind } of Object.values(OPTIONS)) {
    if (key === undefined || raw[key] === undefined || kind.parse(raw[key]) !== undefined) continue;
    problems.push(`${shownName}: ${key}: expected ${kind.expected}, got ${shown(raw[key])}`);
  }
  const at = (key: string): string => `${shownName}: ${key}`;
  const secret = secretSchema(context).optional();
  const password = parseShape(secret, raw[PASSWORD.key], at(PASSWORD.key), problems);
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
}

function modeWarnings(shownName: string, mode: number, hasPlainSecret: boolean): string[] {
  const risk =
    (mode & 0o022) !== 0
      ? 'other users can change it, and it can name commands to run'
      : hasPlainSecret && (mode & 0o077) !== 0
        ? 'holds a secret, and other users can read it'
        : undefined;
  if (risk === undefined) return [];
  return [`${shownName}: ${risk} (mode ${octalMode(mode)}); run: chmod 600 ${shellWord(shownName)}`];
}

/** The value of a plain option, for an error. Objects are not shown: they may hold a misplaced secret. */
function shown(value: unknown): string {
  if (typeof value === 'string') return quote(value);
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return String(value);
  if (!Array.isArray(value)) return 'an object';
  return value.every((item) => typeof item === 'string')
    ? quote(value.join(','))
    : 'an array with values that are not strings';
}
