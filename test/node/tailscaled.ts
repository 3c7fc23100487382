import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';

import { onTestFinished } from 'vitest';

import { SELF } from './stage.ts';

/** A fake of the LocalAPI that the node needs to start, with ids as large as the real ones. This machine is `SELF`, and 127.0.0.1 is its user's laptop. */
export async function tailscaled(
  socketPath: string,
): Promise<{ readonly close: () => void; readonly buses: ReadonlySet<ServerResponse> }> {
  const node = (id: string, address: string): string =>
    `{"ID":"${id}","HostName":"${id}","DNSName":"${id}.tailnet.test.","OS":"linux","UserID":9007199254740993,"TailscaleIPs":["${address}"],"Online":true}`;
  const buses = new Set<ServerResponse>();
  const server = createServer(({ url = '' }, response) => {
    if (url.includes('status')) {
      response.end(
        `{"Version":"1.98.10","TUN":true,"BackendState":"Running","Self":${node('self', SELF)},"Peer":{"nodekey:1":${node('laptop', '127.0.0.1')}},"CurrentTailnet":{"MagicDNSSuffix":"tailnet.test"}}`,
      );
    } else if (url.includes('whois')) {
      response.end(
        '{"Node":{"StableID":"laptop","Name":"laptop.tailnet.test.","User":9007199254740993},"UserProfile":{"ID":9007199254740993,"LoginName":"ada@example.com"},"CapMap":{}}',
      );
    } else {
      buses.add(response);
      response.write('{"State":6}\n');
    }
  }).listen(socketPath);
  await once(server, 'listening');
  const close = (): void => {
    for (const bus of buses) bus.end();
    server.close();
    server.closeIdleConnections();
  };
  onTestFinished(close);
  return { close, buses };
}
