import { endpointKey } from '../../model/endpoint-key.ts';
import type { Dialect, Server } from '../../model/instance.ts';
import type { Endpoint } from '../../model/candidate.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { InstanceRow } from '../shapes.ts';

/** The endpoint in use has its whole URL, for attaching; the others only their origin. */
const MAX_URL_CHARS = 120;
const MAX_HOST_CHARS = 60;
const MAX_VERSION_CHARS = 40;
const MAX_OTHERS = 4;

/** The preview of OpenCode 2 has version numbers like OpenCode 1's. */
export function versionShown({ version, dialect }: { readonly version: string; readonly dialect?: Dialect }): string {
  const isPreview = dialect === 'opencode-2-preview' && !version.startsWith('2');
  return singleLine(isPreview ? `2 (preview ${version})` : version, MAX_VERSION_CHARS);
}

/** Endpoints in order of preference; one that does not answer is marked. */
export function endpointsShown(
  { endpoints }: Pick<Server, 'endpoints'>,
  inUse: Endpoint,
): Pick<InstanceRow, 'via' | 'also'> {
  const key = endpointKey(inUse);
  const others = new Map<string, string>();
  for (const { candidate, result } of endpoints) {
    const other = endpointKey(candidate.endpoint);
    if (other === key || others.has(other)) continue;
    const down = result.status === 'healthy' ? '' : ` (${result.status === 'unhealthy' ? 'down' : result.status})`;
    others.set(other, `${describe(candidate.endpoint, MAX_HOST_CHARS, true)}${down}`);
  }
  const also = [...others.values()].slice(0, MAX_OTHERS);
  if (others.size > MAX_OTHERS) also.push(`${others.size - MAX_OTHERS} more`);
  return { via: describe(inUse, MAX_URL_CHARS, false), ...(also.length > 0 && { also }) };
}

export function renderEndpoints({ via, also }: Pick<InstanceRow, 'via' | 'also'>): string {
  return also === undefined ? `via ${via}` : `via ${via}, also ${also.join(', ')}`;
}

function describe({ route, url }: Endpoint, maxChars: number, originOnly: boolean): string {
  const shown = originOnly && URL.canParse(url) ? new URL(url).origin : url;
  return `${route} ${singleLine(shown, maxChars)}`;
}
