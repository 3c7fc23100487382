import * as z from 'zod';
import type { SecretRef } from './secret-ref.ts';
import { resolvePath } from './text-file.ts';

/** A secret as written in the config file. */
export type ConfigSecret = string | { env: string } | { file: string } | { command: string[] };

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

export function writtenSecret(): z.ZodType<ConfigSecret> {
  const error = 'a string, {"env": NAME}, {"file": PATH} or {"command": [PROGRAM, ARGUMENT, …]}';
  const shapes = [
    z.string(),
    z.strictObject({ env: z.string() }, { error }),
    z.strictObject({ file: z.string() }, { error }),
    z.strictObject({ command: z.array(z.string()) }, { error }),
  ] as const;
  return z.union(shapes, { error });
}

export function secretSchema(context: ConfigContext): z.ZodType<SecretRef> {
  return writtenSecret().transform((secret, issues) => {
    const ref = checkSecret(secret, context);
    if (!('problem' in ref)) return ref;
    issues.addIssue(ref.problem);
    return z.NEVER;
  });
}

/**
 * The reference for a written secret. The environment is read now; files and commands are read when the secret is needed. A
 * missing one locks only the instance that needs it. Problems contain no part of the secret.
 */
export function checkSecret(secret: ConfigSecret, context: ConfigContext): SecretRef | { readonly problem: string } {
  if (typeof secret === 'string') {
    if (secret === '') return { problem: 'expected a secret, got an empty string' };
    context.plainSecret();
    return { kind: 'value', value: secret };
  }
  if ('env' in secret) {
    // An invalid name may be the secret itself, so it is not shown.
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(secret.env))
      return { problem: 'expected the name of an environment variable after "env", without $' };
    // Excludes inherited members such as `constructor`.
    const value = Object.hasOwn(context.env, secret.env) ? context.env[secret.env] : undefined;
    return value === undefined || value === '' ? { kind: 'unset', variable: secret.env } : { kind: 'value', value };
  }
  if ('file' in secret) {
    if (secret.file === '' || secret.file.includes('\0')) return { problem: 'expected a path after "file"' };
    return { kind: 'file', path: resolvePath(secret.file, context.home, context.folder) };
  }
  const argv = argvOf(secret.command);
  if (argv === undefined)
    return { problem: 'expected a program and its arguments after "command", as [PROGRAM, ARGUMENT, …]' };
  return { kind: 'command', argv };
}

/** Undefined if there is no program, or an argument that the system refuses. */
export function argvOf([program, ...rest]: readonly string[]): [string, ...string[]] | undefined {
  const isUsable = program !== undefined && program !== '' && ![program, ...rest].some((word) => word.includes('\0'));
  return isUsable ? [program, ...rest] : undefined;
}
