import type { Settings, StaticInstance } from '../config/settings.ts';
import { quoteShort, singleLine } from '../base/plain-text.ts';
import { badPortReason, isLoopbackHost, urlHost } from '../base/urls.ts';
import type { Candidate, Note } from '../model/candidate.ts';
import type { DiscoverySource, Scan } from './source.ts';

export const STATIC_SOURCE = 'static';

const MAX_NAME_CHARS = 128;

/** The instances configured by URL: always the same, always trusted, listed while offline. */
export function createStaticSource({ instances }: Pick<Settings, 'instances'>): DiscoverySource {
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
  const hostname = urlHost(url);
  return {
    source: STATIC_SOURCE,
    key: name,
    endpoint: {
      url,
      route: isLoopbackHost(hostname) ? 'loopback' : 'url',
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
  return reason === undefined ? [] : [{ subject: quoteShort(name, MAX_NAME_CHARS), reason }];
}
