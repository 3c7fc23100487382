import { endpointKey } from '../../model/endpoint-key.ts';
import type { Dialect, Server } from '../../model/instance.ts';
import type { Endpoint } from '../../model/candidate.ts';
import { singleLine } from '../../base/plain-text.ts';

/** How an instance is reached: the way in use, and what else leads to it. */
export interface EndpointsShown {
  readonly via: string;
  readonly also?: string[];
}

/** The endpoint in use with its whole URL, for attaching; the others as short as they can be distinguished. */
const MAX_URL_CHARS = 120;
const MAX_HOST_CHARS = 60;
const MAX_VERSION_CHARS = 40;
/** Nobody has more ways to one instance. */
const MAX_OTHERS = 4;

/** The preview of OpenCode 2 counts its versions as OpenCode 1 does. */
export function versionShown({ version, dialect }: { readonly version: string; readonly dialect?: Dialect }): string {
  const isPreview = dialect === 'opencode-2-preview' && !version.startsWith('2');
  return singleLine(isPreview ? `2 (preview ${version})` : version, MAX_VERSION_CHARS);
}

/** Endpoints in the order of preference; one that does not answer now is marked. */
export function endpointsShown({ endpoints }: Pick<Server, 'endpoints'>, inUse: Endpoint): EndpointsShown {
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

export function renderEndpoints({
  via,
  also,
}: {
  readonly via: string;
  readonly also?: readonly string[] | undefined;
}): string {
  return also === undefined ? `via ${via}` : `via ${via}, also ${also.join(', ')}`;
}

function describe({ route, url }: Endpoint, maxChars: number, originOnly: boolean): string {
  const shown = originOnly && URL.canParse(url) ? new URL(url).origin : url;
  return `${route} ${singleLine(shown, maxChars)}`;
}
