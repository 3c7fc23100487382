import { isIPv4 } from 'node:net';
import * as z from 'zod';
import { badPortReason } from '../../base/bad-ports.ts';
import { jsonOf } from '../../base/errors.ts';
import { quoteName, singleLine } from '../../base/plain-text.ts';

/** What an OpenCode 2 service wrote about itself, checked. */
export interface ServiceFile {
  /** Scheme, loopback host and port. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  readonly version?: string;
  /** Of the preview it lies in a file of its own. */
  readonly password?: string;
}

/** Fields not named here are ignored: `id` changes with each start and is compared with nothing. */
const schema = z.object({
  version: z
    .string()
    .regex(/^[\w.+-]{1,64}$/)
    .nullish(),
  url: z.string(),
  // As far as any system counts.
  pid: z.int().min(1).max(0x7fff_ffff),
  password: z.string().nullish(),
});

const EXPECTED: Readonly<Record<string, string>> = {
  version: '1 to 64 letters, digits, ".", "_", "+" or "-"',
  url: 'text',
  pid: 'an integer from 1 to 2147483647',
  password: 'text',
};

/**
 * Reads the content of a service's file. Never throws. No problem that it tells quotes a value, which may be the password or
 * hold it, but for the host of the URL.
 */
export function readServiceFile(content: Uint8Array): ServiceFile | { readonly problem: string } {
  const parsed = schema.safeParse(jsonOf(new TextDecoder().decode(content)));
  if (!parsed.success) {
    const names = new Set(parsed.error.issues.map(({ path: [name] }) => String(name ?? '')));
    const wrong = [...names].map((name) => (name === '' ? 'is no JSON object' : `${name}: expected ${EXPECTED[name]}`));
    return { problem: `${wrong.join('; ')}; ignored` };
  }
  const { version, url, pid, password } = parsed.data;
  const place = loopbackPlace(url);
  if ('problem' in place) return { problem: `url: ${place.problem}; ignored` };
  return { ...place, pid, ...(version && { version }), ...(password && { password }) };
}

function loopbackPlace(text: string): { readonly url: string; readonly port: number } | { readonly problem: string } {
  if (!URL.canParse(text)) return { problem: 'expected http://127.0.0.1:PORT' };
  const { protocol, hostname, port: given, origin, href } = new URL(text);
  if (protocol !== 'http:') return { problem: 'expected http, which is all that a service on loopback speaks' };
  if (href !== `${origin}/`) return { problem: 'expected no more than a scheme, a host and a port' };
  const host = loopbackOf(hostname);
  if (host === undefined) {
    return {
      problem: `its host is ${quoteName(singleLine(hostname, 253))}, not loopback: it is not contacted; list it under "instances" in the config file`,
    };
  }
  const port = given === '' ? 80 : Number(given);
  const refused = badPortReason(port);
  return refused === undefined ? { url: `http://${host}:${port}`, port } : { problem: refused };
}

/** Where on loopback a service that listens there is reached, or undefined where it is not. */
function loopbackOf(hostname: string): string | undefined {
  // What listens on every address writes that down.
  if (hostname === '0.0.0.0') return '127.0.0.1';
  if (hostname === '[::]') return '[::1]';
  const isLoopback =
    hostname === 'localhost' || hostname === '[::1]' || (isIPv4(hostname) && hostname.startsWith('127.'));
  return isLoopback ? hostname : undefined;
}
