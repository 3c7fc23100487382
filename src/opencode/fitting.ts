import type * as z from 'zod';

import { jsonOf } from '../base/errors.ts';
import { quoteName } from '../base/plain-text.ts';
import { RequestError } from '../http/request-error.ts';

const MAX_PLACE_CHARS = 200;

/** Throws a `RequestError` with route and field if the answer does not fit. `label`: method and path. */
export function fitting<T>(schema: z.ZodType<T>, value: unknown, label: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path = [], message } = parsed.error.issues[0] ?? {};
  // Keys of an answer are remote text too.
  const place = path.length === 0 ? 'its top' : quoteName(path.map(String).join('.').slice(0, MAX_PLACE_CHARS));
  throw new RequestError('malformed', `${label}: unexpected answer at ${place}: ${message}`);
}

/** As `fitting`, for a JSON text. */
export function fittingJson<T>(schema: z.ZodType<T>, text: string, label: string): T {
  const value = jsonOf(text);
  if (value === undefined) throw new RequestError('malformed', `${label}: the body is not JSON`);
  return fitting(schema, value, label);
}
