/**
 * A machine on a LAN, as a process in a network namespace: live fake opencodes, and advertised services without a listener. Its
 * only argument is `CrowdOptions` as JSON.
 */
import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer } from 'node:net';

import { startFakeOpencode } from '../../test/rig/fake/fake-opencode.ts';
import { announcement } from '../../test/rig/network/mdns-packets.ts';
import { serveOrders } from './orders.ts';

export interface CrowdOptions {
  /** This machine's addresses; each advertises `each` services. */
  readonly addresses: readonly string[];
  readonly each: number;
  /** The ports of fake opencodes. */
  readonly live: readonly number[];
}

export type CrowdOrder =
  /** Announces one of the fake opencodes. */
  | { readonly order: 'announce'; readonly port: number }
  /** From now on answers mDNS questions with everything that the addresses advertise. Answers with their number. */
  | { readonly order: 'crowd' };

const FIRST_CROWD_PORT = 30_000;
const MDNS_PORT = 5353;
const GROUP = '224.0.0.251';

const options = JSON.parse(process.argv[2] ?? '{}') as CrowdOptions;
const sockets = await Promise.all(options.addresses.map(open));
await Promise.all(options.live.map(serve));
const crowd = Array.from({ length: options.each }, (_, index) => packetOf(FIRST_CROWD_PORT + index));

await serveOrders({ ready: true }, async (given) => {
  const order = given as CrowdOrder;
  if (order.order === 'announce') await say(sockets[0], packetOf(order.port));
  else await answerQuestions();
  return { services: options.each * options.addresses.length };
});

async function answerQuestions(): Promise<void> {
  const listener = createSocket({ type: 'udp4', reuseAddr: true });
  listener.on('message', (packet) => {
    const isQuestion = packet.length > 2 && ((packet[2] ?? 0) & 0x80) === 0;
    if (isQuestion && packet.includes('_http')) for (const socket of sockets) void sayAll(socket);
  });
  await new Promise<void>((resolve) => listener.bind(MDNS_PORT, '0.0.0.0', resolve));
  for (const address of options.addresses.slice(0, 1)) listener.addMembership(GROUP, address);
  for (const socket of sockets) await sayAll(socket);
}

async function sayAll(socket: Socket): Promise<void> {
  for (const packet of crowd) await say(socket, packet);
}

function say(socket: Socket | undefined, packet: Buffer): Promise<void> {
  return new Promise((resolve) => {
    if (socket === undefined) resolve();
    else socket.send(packet, MDNS_PORT, GROUP, () => resolve());
  });
}

function packetOf(port: number): Buffer {
  return announcement({
    label: `opencode-${port}`,
    type: '_http._tcp.local',
    port,
    addresses: options.addresses.slice(0, 1),
  });
}

function open(address: string): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = createSocket({ type: 'udp4', reuseAddr: true });
    socket.bind(MDNS_PORT, address, () => {
      socket.setMulticastInterface(address);
      resolve(socket);
    });
  });
}

/** Fakes listen on loopback only. */
async function serve(port: number): Promise<void> {
  const fake = await startFakeOpencode({ directory: `/home/user/project-${port}` });
  fake.addSession({ title: 'A session' });
  const server = createServer((inbound) => {
    const outbound = connect(fake.port, '127.0.0.1');
    inbound.pipe(outbound).pipe(inbound);
    inbound.on('error', () => outbound.destroy());
    outbound.on('error', () => inbound.destroy());
  });
  await new Promise<void>((resolve) => server.listen(port, '0.0.0.0', resolve));
}
