import type { ClientRequest } from 'node:http';
import type { Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { TLSSocket } from 'node:tls';
import type { Endpoint } from '../model/candidate.ts';
import { urlHost } from '../base/urls.ts';
import { kernelAddress, readListeners, readSocketTable, type SocketRow, socketsOf } from '../base/socket-table.ts';

/** Why a password may not be sent on a connection. */
export interface Withheld {
  /** Cause and advice; safe to show, and short enough for a line of a list. */
  readonly reason: string;
  /** The wrong process holds the port, so nothing is sent. False if the holder is unknown: then only the password is left out. */
  readonly isForeign: boolean;
}

/** The part of an endpoint that decides who may receive its password. */
export type Receiver = Pick<Endpoint, 'url' | 'dial' | 'ownerUid' | 'holderPid' | 'configured'>;

/** The sockets at the far end of a connection, or why they are unknown. Undefined if it leads to another machine. */
type Holder = Sockets | { readonly unknown: string } | undefined;

interface Sockets {
  readonly rows: readonly SocketRow[];
  /** By process id, whether it holds all of them. */
  readonly heldBy: Map<number, Promise<boolean>>;
}

/** Answer for a socket that no process holds any more; the kernel reports uid 0 for it. */
const NOBODY = -1;

/** Determined once for each connection, because later requests on it reach the same process. */
const HOLDERS = new WeakMap<object, Promise<Holder>>();

/**
 * Calls `go` once `request` is connected and nothing has been written, with why no password may be sent, or undefined; without
 * `receiver` at once. Until then the caller must neither write to the request nor end it. For a pooled connection whose holder was
 * not determined when it was made, calls `unseen` instead: the process that listens now may not be the one that accepted it.
 */
export function whenConnected(
  request: ClientRequest,
  receiver: Receiver | undefined,
  go: (withheld: Withheld | undefined) => void,
  unseen?: () => void,
): void {
  request.once('socket', (socket) => {
    const ask = (): void => {
      if (receiver === undefined) {
        go(undefined);
        return;
      }
      if (request.reusedSocket && !HOLDERS.has(socket) && unseen !== undefined) {
        unseen();
        return;
      }
      const known = HOLDERS.get(socket) ?? holderOf(socket, receiver);
      HOLDERS.set(socket, known);
      void known
        .then((holder) => judge(holder, receiver, addressOf(socket)))
        .then((withheld) => {
          if (!request.destroyed) go(withheld);
        });
    };
    if (socket.connecting) socket.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', ask);
    else ask();
  });
}

/** Never rejects. */
async function holderOf(socket: Socket, { url, dial }: Receiver): Promise<Holder> {
  const { localAddress, remoteAddress } = socket;
  // A dialled connection may start with one to tailscaled on this machine; its URL has the final address.
  const target = dial === undefined ? remoteAddress : urlHost(url);
  if (target !== undefined && !isOwn(target, localAddress)) return undefined;
  if (localAddress === undefined || remoteAddress === undefined) return { unknown: 'the connection is closed' };
  const local = { address: tableAddress(localAddress), port: socket.localPort };
  const remote = { address: tableAddress(remoteAddress), port: socket.remotePort };
  const listeners = await listenersNow();
  if (listeners === undefined) return { unknown: 'no /proc/net/tcp, no lsof' };
  const here = listeners.filter(({ local: { port } }) => port === remote.port);
  const exact = here.filter((row) => mapped(row.local.address) === remote.address);
  // The kernel prefers a listener of the exact address to one of the wildcard address.
  const taken = exact.length > 0 ? exact : here.filter((row) => isWildcard(row.local, remote));
  // A listener of root may pass connections to workers of other users.
  if (taken.length > 0 && taken.every((row) => uidOf(row) === 0)) return { rows: taken, heldBy: new Map() };
  // The process that accepted it may have stopped listening and left the port to another, or be in another network namespace.
  const accepted = (await socketsNow())?.filter(
    (row) => isEnd(row.local, remote) && isEnd(row.remote, local) && !row.listening,
  );
  // Without an inode, the connection is not accepted yet; if there is a listener, that will accept it.
  const taking = taken.length > 0 ? accepted?.filter(({ inode }) => inode !== '0') : accepted;
  const rows = [...taken, ...(taking ?? [])];
  if (rows.length > 0) return { rows, heldBy: new Map() };
  return { unknown: 'another container, or another user that this system hides' };
}

/** Never rejects. */
async function judge(
  holder: Holder,
  { ownerUid, holderPid, configured }: Receiver,
  address: string,
): Promise<Withheld | undefined> {
  if (holder === undefined) return holderPid === undefined ? undefined : notHeldBy(holderPid, address);
  if ('unknown' in holder) {
    if (configured === true) return undefined;
    const reason = `no password was sent: cannot see which user holds ${address} (${holder.unknown}); list that URL under "instances" in the config file to send it anyway`;
    return { reason, isForeign: holderPid !== undefined };
  }
  const own = process.geteuid?.();
  const allowed = new Set([own, ownerUid, 0]);
  const stranger = holder.rows.map(uidOf).find((uid) => !allowed.has(uid));
  if (stranger === undefined)
    return holderPid === undefined || (await isHeldBy(holderPid, holder)) ? undefined : notHeldBy(holderPid, address);
  const who = stranger === NOBODY ? 'a process that has ended' : `user id ${stranger}`;
  const owner = ownerUid === undefined || ownerUid === own ? '' : `, the registration's owner (${ownerUid})`;
  const reason = `no password was sent: ${who} holds ${address}, not this user (${own})${owner} or root; end that process or remove the entry for that address`;
  return { reason, isForeign: true };
}

/**
 * Whether `pid` holds the listener and, once accepted, the connection. A worker forked by `pid` may share the listener, but may
 * not accept in its place, nor keep listening after it has ended. Rows of `lsof` name the process.
 */
function isHeldBy(pid: number, { rows, heldBy }: Sockets): Promise<boolean> {
  let held = heldBy.get(pid);
  if (held === undefined) {
    held = socketsOf(pid).then((own) =>
      rows.every(({ holder, inode }) => (holder === undefined ? own.has(inode) : holder.pid === pid)),
    );
    heldBy.set(pid, held);
  }
  return held;
}

function notHeldBy(pid: number, address: string): Withheld {
  const reason = `nothing was sent: process ${pid}, which the service's file names, does not hold ${address}; restart that service (opencode service restart)`;
  return { reason, isForeign: true };
}

/** Whether an address is this machine's. The list of interfaces lacks most loopback addresses, and interfaces that are down. */
function isOwn(address: string, localAddress: string | undefined): boolean {
  const plain = withoutZone(address);
  if (/^(?:127\.|::1$|localhost$)/.test(plain) || plain === withoutZone(localAddress ?? '')) return true;
  return Object.values(networkInterfaces()).some((found) => found?.some((one) => withoutZone(one.address) === plain));
}

function withoutZone(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)|%.*$/gi, '');
}

type End = { readonly address: string; readonly port: number | undefined };

function isEnd({ address, port }: End, wanted: End): boolean {
  return mapped(address) === wanted.address && port === wanted.port;
}

function tableAddress(address: string): string {
  return mapped(kernelAddress(withoutZone(address)));
}

const IPV4_WILDCARD = kernelAddress('0.0.0.0');
const IPV6_WILDCARD = kernelAddress('::');
const MAPPED_PREFIX = kernelAddress('::ffff:0.0.0.0').slice(0, -IPV4_WILDCARD.length);

/** The address in the form of a dual-stack socket. */
function mapped(address: string): string {
  return address.length === IPV4_WILDCARD.length ? MAPPED_PREFIX + address : address;
}

/** Whether it listens on every address of the family of `wanted`. The IPv6 wildcard may also accept IPv4. */
function isWildcard({ address }: End, wanted: End): boolean {
  if (address === IPV6_WILDCARD) return true;
  return mapped(address) === MAPPED_PREFIX + IPV4_WILDCARD && wanted.address.startsWith(MAPPED_PREFIX);
}

function uidOf({ uid, inode }: SocketRow): number {
  return inode === '0' ? NOBODY : uid;
}

function addressOf({ remoteAddress, remotePort }: Socket): string {
  return `port ${remotePort} of ${remoteAddress}`;
}

const listenersNow = shared(readListeners);
const socketsNow = shared(readSocketTable);

/** Resolves to a result that was read after the call; calls during one read share the next. `read` never rejects. */
function shared<T>(read: () => Promise<T>): () => Promise<T> {
  let reading: Promise<T> | undefined;
  let next: Promise<T> | undefined;
  const start = (): Promise<T> => {
    next = undefined;
    const now = read().finally(() => {
      if (reading === now) reading = undefined;
    });
    reading = now;
    return now;
  };
  return () => {
    if (reading === undefined) return start();
    next ??= reading.then(start);
    return next;
  };
}
