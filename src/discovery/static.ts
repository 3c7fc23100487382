import { isIPv4 } from 'node:net';
import * as z from 'zod';
import type { CredentialRef, SecretRef } from '../config/file/secret-ref.ts';
import type { StaticInstance } from '../config/settings.ts';
import { quoteName, singleLine } from '../base/plain-text.ts';
import { badPortReason } from '../base/bad-ports.ts';
import type { Candidate, Note, Route } from '../model/candidate.ts';
import type { DiscoverySource, Scan } from './source.ts';

export const STATIC_SOURCE = 'static';

const MAX_NAME_CHARS = 128;

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null;

export const staticOptions = z.object({
  instances: z
    .array(
      z.object({
        name: z.string().min(1),
        url: z.url({ protocol: /^https?$/ }),
        /** Checked where the configuration is read, as the credential is. */
        headers: z.record(z.string(), z.union([z.string(), z.custom<SecretRef>(isObject)])),
        credential: z.custom<CredentialRef>(isObject).optional(),
      }),
    )
    .readonly(),
});
export type StaticOptions = z.infer<typeof staticOptions>;

/** The instances that a person listed by URL: always the same, always trusted, listed while offline. */
export function createStaticSource({ instances }: StaticOptions): DiscoverySource {
  const scan: Scan = { candidates: instances.map(candidateOf), notes: instances.flatMap(notesOn) };
  return {
    name: STATIC_SOURCE,
    async scan(signal) {
      signal.throwIfAborted();
      return scan;
    },
  };
}

function candidateOf({ name, url, headers, credential }: StaticInstance): Candidate {
  const hostname = hostnameOf(url);
  return {
    source: STATIC_SOURCE,
    key: name,
    endpoint: {
      url,
      route: routeOf(hostname),
      ...(Object.keys(headers).length > 0 && { headers }),
      configured: true,
    },
    claims: { name: singleLine(name, MAX_NAME_CHARS), hostname },
    trust: { level: 'trusted' },
    ...(credential && { credential }),
    pinned: true,
  };
}

function notesOn({ name, url }: StaticInstance): Note[] {
  const { port } = new URL(url);
  // An absent port is 80 or 443, which are allowed.
  const reason = port === '' ? undefined : badPortReason(Number(port));
  return reason === undefined ? [] : [{ subject: quoteName(singleLine(name, MAX_NAME_CHARS)), reason }];
}

/** Without the brackets that a URL puts around an IPv6 address. */
function hostnameOf(url: string): string {
  return new URL(url).hostname.replace(/^\[(.*)\]$/, '$1');
}

function routeOf(hostname: string): Route {
  const isLoopback =
    hostname === 'localhost' || hostname === '::1' || (isIPv4(hostname) && hostname.startsWith('127.'));
  return isLoopback ? 'loopback' : 'url';
}
