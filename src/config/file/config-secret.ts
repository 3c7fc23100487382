import * as z from 'zod';
import type { SecretRef } from './secret-ref.ts';
import { resolvePath } from './text-file.ts';

/** A secret as written in the config file. */
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

/** Shared by the checks of the config file's parts, which add to `problems` and `warnings`. */
export interface ConfigContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  /** Base of relative paths in the config file. */
  readonly folder: string;
  readonly problems: string[];
  readonly warnings: string[];
  /** Called for each secret written as plain text. */
  plainSecret(): void;
}

/**
 * The reference for a written secret. The environment is read now; files and commands are read when the secret is needed. A
 * missing one locks only the instance that needs it. Problems contain no part of the secret.
 */
export function checkSecret(secret: ConfigSecret, where: string, context: ConfigContext): SecretRef | undefined {
  const fail = (reason: string): undefined => void context.problems.push(`${where}: ${reason}`);
  if (typeof secret === 'string') {
    if (secret === '') return fail('expected a secret, got an empty string');
    context.plainSecret();
    return { kind: 'value', value: secret };
  }
  if ('env' in secret) {
    // An invalid name may be the secret itself, so it is not shown.
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(secret.env))
      return fail('expected the name of an environment variable after "env", without $');
    // Excludes inherited members such as `constructor`.
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
