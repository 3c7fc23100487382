import { join } from 'node:path';
import { singleLine } from '../../base/plain-text.ts';
import type { Registration } from './registration.ts';
import type { Candidate, Trust } from '../../model/candidate.ts';

export const REGISTRY_SOURCE = 'local-relay';

export interface RegistrationSite {
  readonly directory: { readonly path: string; readonly ownerUid: number };
  readonly trust: Trust;
  /** This machine's. */
  readonly hostname: string;
}

/** The candidate of one registration file. An untrusted one gets no credential. */
export function candidateOf(
  fileName: string,
  registration: Registration,
  { directory, trust, hostname }: RegistrationSite,
): Candidate {
  const { port, localPort, cwd, ...claims } = registration;
  const isOurs = isThisMachine(registration.hostname, hostname) && (localPort === undefined || localPort === port);
  const knownLocalPort = localPort ?? (isOurs ? port : undefined);
  return {
    source: REGISTRY_SOURCE,
    key: keyOf(fileName),
    endpoint: {
      url: `http://127.0.0.1:${port}`,
      route: isOurs ? 'loopback' : 'relay',
      ownerUid: directory.ownerUid,
    },
    claims: {
      ...claims,
      ...(knownLocalPort !== undefined && { localPort: knownLocalPort }),
      ...(cwd !== undefined && { directory: cwd }),
    },
    trust,
    ...(registration.id !== undefined &&
      trust.level === 'trusted' && {
        credential: {
          password: {
            kind: 'file',
            path: join(directory.path, '.credentials', registration.id),
            ownerUid: directory.ownerUid,
            optional: true,
          },
        },
      }),
  };
}

/** An absent host name means this machine: a minimal file written by hand has only a port. */
function isThisMachine(claimed: string | undefined, hostname: string): boolean {
  if (claimed === undefined) return true;
  const name = claimed.toLowerCase();
  return name === 'localhost' || name === hostname.toLowerCase();
}

/** The file name with unsafe characters escaped; `%` too, so that different names give different keys. */
function keyOf(fileName: string): string {
  if (!fileName.includes('%') && singleLine(fileName, Infinity) === fileName) return fileName;
  return encodeURIComponent(fileName);
}
