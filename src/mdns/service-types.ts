import { singleLine } from '../base/plain-text.ts';

/** Service type of `opencode --mdns`, which names the service `opencode-<port>` (1.18.33). */
export const OPENCODE_TYPE = '_http._tcp.local';
/** Service type of `opencode-connected --lan`. */
export const CONNECTED_TYPE = '_opencode-mcp._tcp.local';
/** The same in the notation of bonjour-service. */
export const CONNECTED_TYPE_NAME = 'opencode-mcp';

/** The unverified labels in the TXT record of our own service type. */
export interface Advertised {
  readonly id?: string;
  readonly name?: string;
  readonly hostname?: string;
  readonly directory?: string;
}

/** The format of the TXT record. */
const VERSION = '1';

const KEYS = { id: 'id', name: 'name', hostname: 'host', directory: 'dir' } as const satisfies Record<
  keyof Advertised,
  string
>;

/** One string of a TXT record, including its key (RFC 6763 section 6.1). */
const MAX_STRING_BYTES = 255;
/** More than our own records have. */
const MAX_STRINGS = 32;

const MAX_CHARS = { name: 128, hostname: 253, directory: 255 } as const;

/** The fields of the TXT record. A value that does not fit is left out, because half a path names another directory. */
export function txtOf(advertised: Advertised): Readonly<Record<string, string>> {
  const pairs = Object.entries(KEYS).flatMap(([field, key]) => {
    const value = advertised[field as keyof Advertised];
    const fits = value !== undefined && Buffer.byteLength(`${key}=${value}`) <= MAX_STRING_BYTES;
    return fits ? [[key, value] as const] : [];
  });
  return Object.fromEntries([['v', VERSION] as const, ...pairs]);
}

/** Reads the strings of a TXT record, bounded and cleaned. */
export function readTxt(strings: readonly Uint8Array[]): Advertised {
  const fields = new Map<string, string>();
  for (const string of strings.slice(0, MAX_STRINGS)) {
    const text = Buffer.from(string.buffer, string.byteOffset, string.length).toString('utf8');
    const at = text.indexOf('=');
    const key = text.slice(0, at).toLowerCase();
    // The first of equal keys counts (RFC 6763 section 6.4).
    if (at > 0 && !fields.has(key)) fields.set(key, text.slice(at + 1));
  }
  const label = (field: keyof typeof MAX_CHARS): string | undefined =>
    singleLine(fields.get(KEYS[field]) ?? '', MAX_CHARS[field]).trim() || undefined;
  const id = fields.get(KEYS.id) ?? '';
  const [name, hostname, directory] = [label('name'), label('hostname'), label('directory')];
  return {
    ...(/^[A-Za-z0-9_-]{1,64}$/.test(id) && { id }),
    ...(name !== undefined && { name }),
    ...(hostname !== undefined && { hostname }),
    ...(directory !== undefined && { directory }),
  };
}
