import * as z from 'zod';
import { singleLine } from '../../base/plain-text.ts';
import { badPortReason } from '../../base/urls.ts';

/** The version of the format below, written as `protocol`; a file without it is version 1. */
const REGISTRATION_PROTOCOL = 1;

/** Longer than any typed name, short enough for a line of a listing. */
const MAX_NAME_CHARS = 128;
/** The longest DNS name. */
const MAX_HOSTNAME_CHARS = 253;
/** PATH_MAX on Linux. */
const MAX_CWD_CHARS = 4096;
/** Enough to recognise a wrong value. */
const MAX_SHOWN_CHARS = 60;

/** The checked content of a registration file. Text is bounded and, except for `cwd`, free of control characters. */
export interface Registration {
  readonly id?: string;
  readonly name: string;
  readonly hostname?: string;
  readonly port: number;
  readonly localPort?: number;
  /** For comparison; clean it before showing it. */
  readonly cwd?: string;
  /** Milliseconds since the Unix epoch. */
  readonly connectedAt?: number;
}

export type RegistrationReading =
  /** `remarks` name what was changed or left out. */
  | { readonly registration: Registration; readonly remarks: readonly string[] }
  /** Why it is unusable. */
  | { readonly problem: string };

const ID = '1 to 64 letters, digits, "_" or "-"';
const PORT = 'an integer from 1 to 65535';
const TIME = 'an ISO date or milliseconds since the epoch';

const text = z.string('a string').nullish();
const port = z.int(PORT).min(1, PORT).max(65_535, PORT);

/** Fields may be null, as a shell template leaves them; unknown fields are ignored. The messages complete "expected …". */
const schema = z.object({
  id: z
    .string(ID)
    .regex(/^[A-Za-z0-9_-]{1,64}$/, ID)
    .nullish(),
  name: text,
  hostname: text,
  port,
  localPort: port.nullish(),
  cwd: text,
  connectedAt: z.union([z.string(), z.number()], TIME).nullish(),
});

/**
 * Reads the content of the registration file `fileName`. Never throws: a registration
 * is from another user's disk, may be half written and may contain anything.
 */
export function readRegistration(content: Uint8Array, fileName: string): RegistrationReading {
  const json = parseObject(content);
  if ('problem' in json) return json;
  // First, because a later version may change every other field.
  const newer = protocolProblem(json.fields['protocol']);
  if (newer !== undefined) return { problem: newer };
  const parsed = schema.safeParse(json.fields);
  if (!parsed.success) return { problem: describe(parsed.error, json.fields) };
  const refused = badPortReason(parsed.data.port);
  if (refused !== undefined) return { problem: refused };
  // Compared with the directory that the instance reports: cutting or cleaning it could name another directory.
  const cwd = parsed.data.cwd ?? '';
  if (cwd.length > MAX_CWD_CHARS || /[\0\p{Surrogate}]/u.test(cwd)) {
    return { problem: `cwd: no directory has such a name, or one longer than ${MAX_CWD_CHARS} characters` };
  }
  return clean(parsed.data, fileName);
}

function parseObject(
  content: Uint8Array,
): { readonly fields: Readonly<Record<string, unknown>> } | { readonly problem: string } {
  if (content.length === 0) return { problem: 'is empty: damaged, or still being written' };
  if (content.includes(0)) return { problem: 'holds NUL bytes: damaged, or not a registration' };
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    return { problem: 'is not UTF-8 text' };
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { problem: 'is not complete JSON: damaged, or still being written' };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { problem: `expected a JSON object, got ${shown(value)}` };
  return { fields: Object.fromEntries(Object.entries(value)) };
}

function protocolProblem(protocol: unknown): string | undefined {
  if (protocol === undefined || protocol === null) return undefined;
  if (typeof protocol !== 'number' || !Number.isInteger(protocol) || protocol < 1) {
    return `protocol: expected a positive integer, got ${shown(protocol)}`;
  }
  if (protocol <= REGISTRATION_PROTOCOL) return undefined;
  return `written by a newer opencode-connected (protocol ${protocol}); update this program`;
}

function describe({ issues }: z.ZodError, fields: Readonly<Record<string, unknown>>): string {
  const wrong = new Map(issues.map(({ path, message }) => [String(path[0]), message]));
  return [...wrong].map(([name, expected]) => `${name}: expected ${expected}, got ${shown(fields[name])}`).join('; ');
}

function shown(value: unknown): string {
  return value === undefined ? 'nothing' : singleLine(JSON.stringify(value), MAX_SHOWN_CHARS);
}

function clean(fields: z.infer<typeof schema>, fileName: string): RegistrationReading {
  const remarks: string[] = [];
  const label = (field: string, raw: string | null | undefined, maxChars: number): string => {
    const whole = singleLine(raw ?? '', Infinity);
    if (raw && whole !== raw) remarks.push(`${field}: left out control or invisible characters`);
    const kept = singleLine(whole, maxChars);
    if (kept !== whole) remarks.push(`${field}: cut to ${maxChars} characters`);
    return kept;
  };

  const name = label('name', fields.name, MAX_NAME_CHARS).trim();
  if (/[/\\]|^\.\.?$/.test(name)) remarks.push('name: looks like a path; it is used as a label only');
  const hostname = label('hostname', fields.hostname, MAX_HOSTNAME_CHARS).trim();
  const connectedAt = milliseconds(fields.connectedAt);
  if (connectedAt === undefined && fields.connectedAt != null) {
    remarks.push(`connectedAt: expected ${TIME}, got ${shown(fields.connectedAt)}; left out`);
  }

  return {
    remarks,
    registration: {
      ...(fields.id != null && { id: fields.id }),
      name: name === '' ? baseName(fileName) : name,
      ...(hostname !== '' && { hostname }),
      port: fields.port,
      ...(fields.localPort != null && { localPort: fields.localPort }),
      ...(fields.cwd && { cwd: fields.cwd }),
      ...(connectedAt !== undefined && { connectedAt }),
    },
  };
}

function baseName(fileName: string): string {
  return singleLine(fileName.replace(/\.json$/, ''), MAX_NAME_CHARS).trim() || 'unnamed';
}

/** Beyond this a Date is invalid. */
const MAX_DATE_MS = 8.64e15;

function milliseconds(value: string | number | null | undefined): number | undefined {
  // Date.parse accepts much that is not an ISO date, such as "port 1".
  const time = typeof value === 'string' && /^\d{4}-\d\d-\d\d/.test(value) ? Date.parse(value) : value;
  return typeof time === 'number' && time >= 0 && time <= MAX_DATE_MS ? time : undefined;
}
