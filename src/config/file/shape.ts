import * as z from 'zod';
import { didYouMean } from './nearest.ts';
import { singleLine } from '../../base/plain-text.ts';

/**
 * Checks the shape of one part of the config file. The schema's `error` texts complete "expected …". Problems name the kind of
 * the value found, never the value, which may be a secret. Unknown keys are reported and left out, so that they do not hide
 * further problems.
 */
export function parseShape<T>(schema: z.ZodType<T>, value: unknown, where: string, problems: string[]): T | undefined {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const known = schema instanceof z.ZodObject ? Object.keys(schema.shape) : undefined;
  const unknown = new Set<string>();
  for (const issue of result.error.issues) {
    // Own keys only: a key inside a secret may be the misplaced secret itself.
    if (issue.code === 'unrecognized_keys' && issue.path.length === 0 && known !== undefined) {
      for (const key of issue.keys) {
        unknown.add(key);
        problems.push(
          `${place(where, [key])}: unknown key${didYouMean(key, known) || '; opencode-mcp help settings lists the keys'}`,
        );
      }
    } else {
      problems.push(
        `${place(where, issue.path)}: expected ${issue.message}, got ${kindOf(valueAt(value, issue.path))}`,
      );
    }
  }
  if (unknown.size === 0 || !(value instanceof Object)) return undefined;
  return schema.safeParse(Object.fromEntries(Object.entries(value).filter(([key]) => !unknown.has(key)))).data;
}

/** Appends keys and indices: `/home/u/config.json: instances[0].url`. A key that is a header line is cut before its value. */
function place(where: string, path: readonly PropertyKey[]): string {
  return path
    .reduce<string>((sofar, step) => {
      if (typeof step === 'number') return `${sofar}[${step}]`;
      const key = singleLine(/^[^:=\s]*/.exec(String(step))?.[0] ?? '', 80);
      return sofar.endsWith(': ') ? sofar + key : `${sofar}.${key}`;
    }, where)
    .replace(/: $/, '');
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, step) => (inner instanceof Object ? Reflect.get(inner, step) : undefined), value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
