import * as z from 'zod';
import type { SecretRef } from './secret-ref.ts';
import type { ConfigFileInput } from './config-file.ts';
import { resolvePath } from './text-file.ts';

/** How a secret may be written in the config file. */
export type ConfigSecret = string | { env: string } | { file: string } | { command: string[] };

export function configSecretSchema(): z.ZodType<ConfigSecret> {
  const error = 'a string, {"env": NAME}, {"file": PATH} or {"command": [PROGRAM, ARGUMENT, …]}';
  const shapes = [
    z.string(),
    z.strictObject({ env: z.string() }, { error }),
    z.strictObject({ file: z.string() }, { error }),
    z.strictObject({ command: z.array(z.string()) }, { error }),
  ] as const;
  return z.union(shapes, { error });
}

/** What the checks of the config file's parts need to know, and where they put what they find. */
export interface ConfigContext extends Pick<ConfigFileInput, 'env' | 'home' | 'problems' | 'warnings'> {
  /** Paths in the config file are relative to it. */
  readonly folder: string;
  /** Called for each secret that stands in the config file itself. */
  plainSecret(): void;
}

/**
 * A secret as it is written. Files and commands are read when it is needed, the environment now; what is missing there locks
 * the instance that needs it, then. No text about it holds any part of it.
 */
export function checkSecret(secret: ConfigSecret, where: string, context: ConfigContext): SecretRef | undefined {
  const fail = (reason: string): undefined => void context.problems.push(`${where}: ${reason}`);
  if (typeof secret === 'string') {
    if (secret === '') return fail('expected a secret, got an empty string');
    context.plainSecret();
    return { kind: 'value', value: secret };
  }
  if ('env' in secret) {
    // A name that cannot be one is perhaps the secret itself, so it is not shown.
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(secret.env))
      return fail('expected the name of an environment variable after "env", without $');
    // The environment has inherited members too: `constructor`.
    const value = Object.hasOwn(context.env, secret.env) ? context.env[secret.env] : undefined;
    return value === undefined || value === '' ? { kind: 'unset', variable: secret.env } : { kind: 'value', value };
  }
  if ('file' in secret) {
    if (secret.file === '' || secret.file.includes('\0')) return fail('expected a path after "file"');
    return { kind: 'file', path: resolvePath(secret.file, context.home, context.folder) };
  }
  const [program, ...rest] = secret.command;
  if (program === undefined || program === '' || secret.command.some((argument) => argument.includes('\0')))
    return fail('expected a program and its arguments after "command", as [PROGRAM, ARGUMENT, …]');
  return { kind: 'command', argv: [program, ...rest] };
}
