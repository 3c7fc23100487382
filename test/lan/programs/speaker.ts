import { createSocket, type Socket } from 'node:dgram';
import { createInterface } from 'node:readline';

import type { Order } from '../speaker.ts';

// Multicasts packets from this machine's addresses. Reads one order per line as JSON, and writes a line after each order.
const sockets = new Map<string, Promise<Socket>>();

function socketFrom(address: string): Promise<Socket> {
  const existing = sockets.get(address);
  if (existing !== undefined) return existing;
  const opened = new Promise<Socket>((resolve) => {
    const socket = createSocket({ type: 'udp4', reuseAddr: true });
    socket.bind(5353, address, () => {
      socket.setMulticastInterface(address);
      socket.setMulticastTTL(255);
      resolve(socket);
    });
  });
  sockets.set(address, opened);
  return opened;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { from, packets, times } = JSON.parse(line) as Order;
  const socket = await socketFrom(from);
  const buffers = packets.map((packet) => Buffer.from(packet, 'base64'));
  for (let round = 0; round < times; round += 1) {
    // A packet that the system refuses to send is lost, as on any network.
    for (const packet of buffers)
      await new Promise<void>((resolve) => socket.send(packet, 5353, '224.0.0.251', () => resolve()));
  }
  process.stdout.write('done\n');
}
process.exit(0);
