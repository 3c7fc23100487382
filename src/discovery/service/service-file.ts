import * as z from 'zod';
import { badPortReason, isLoopbackHost, urlHost } from '../../base/urls.ts';
import { jsonOf } from '../../base/errors.ts';
import { quoteShort } from '../../base/plain-text.ts';

/** The file that an OpenCode 2 service writes about itself, checked. */
export interface ServiceFile {
  /** Scheme, loopback host and port. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  readonly version?: string;
  /** Absent for the preview, which keeps it in a separate file. */
  readonly password?: string;
}

const VERSION = '1 to 64 letters, digits, ".", "_", "+" or "-"';
const PID = 'an integer from 1 to 2147483647';

/** Other fields are ignored: `id` changes with each start. The messages complete "expected …". */
const schema = z.object({
  version: z
    .string(VERSION)
    .regex(/^[\w.+-]{1,64}$/, VERSION)
    .nullish(),
  url: z.string('text'),
  // pid_t has 31 bits.
  pid: z.int(PID).min(1, PID).max(0x7fff_ffff, PID),
  password: z.string('text').nullish(),
});

/**
 * Reads the content of a service's file. Never throws. Problems quote no value except the host of the URL, because any value
 * may hold the password.
 */
export function readServiceFile(content: Uint8Array): ServiceFile | { readonly problem: string } {
  const parsed = schema.safeParse(jsonOf(new TextDecoder().decode(content)));
  if (!parsed.success) {
    const wrong = parsed.error.issues.map(({ path: [name], message }) =>
      name === undefined ? 'is not a JSON object' : `${String(name)}: expected ${message}`,
    );
    return { problem: `${[...new Set(wrong)].join('; ')}; ignored` };
  }
  const { version, url, pid, password } = parsed.data;
  const address = loopbackAddress(url);
  if ('problem' in address) return { problem: `url: ${address.problem}; ignored` };
  return { ...address, pid, ...(version && { version }), ...(password && { password }) };
}

function loopbackAddress(text: string): { readonly url: string; readonly port: number } | { readonly problem: string } {
  if (!URL.canParse(text)) return { problem: 'expected http://127.0.0.1:PORT' };
  const { protocol, hostname, port: given, origin, href } = new URL(text);
  if (protocol !== 'http:') return { problem: 'expected http: a service on loopback has no TLS' };
  if (href !== `${origin}/`) return { problem: 'expected only a scheme, a host and a port' };
  // A service that listens on every address writes the wildcard.
  const host = WILDCARDS.get(hostname) ?? (isLoopbackHost(urlHost(text)) ? hostname : undefined);
  if (host === undefined) {
    return {
      problem: `its host is ${quoteShort(hostname, 253)}, not loopback: it is not contacted; list it under "instances" in the config file`,
    };
  }
  const port = given === '' ? 80 : Number(given);
  const refused = badPortReason(port);
  return refused === undefined ? { url: `http://${host}:${port}`, port } : { problem: refused };
}

const WILDCARDS: ReadonlyMap<string, string> = new Map([
  ['0.0.0.0', '127.0.0.1'],
  ['[::]', '[::1]'],
]);
