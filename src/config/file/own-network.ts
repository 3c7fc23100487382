import { BlockList, isIP } from 'node:net';
import { urlHost } from '../../base/urls.ts';

/** Loopback, and the address ranges of Tailscale, where traffic is encrypted and reaches no third party. */
const OWN = new BlockList();
OWN.addSubnet('127.0.0.0', 8, 'ipv4');
OWN.addAddress('::1', 'ipv6');
OWN.addSubnet('100.64.0.0', 10, 'ipv4');
OWN.addSubnet('fd7a:115c:a1e0::', 48, 'ipv6');

/** Whether a URL leads to this machine or into a tailnet, judged by the URL alone. */
export function isOwnNetwork(url: string): boolean {
  const host = urlHost(url).replace(/\.$/, '');
  const family = isIP(host);
  if (family !== 0) return OWN.check(host, family === 4 ? 'ipv4' : 'ipv6');
  return host === 'localhost' || host.endsWith('.localhost') || host.endsWith('.ts.net');
}
