import {
  holdersOf,
  kernelAddress,
  readListeners,
  type SocketHolder,
  type SocketRow,
  stillHeld,
} from '../../base/socket-table.ts';

/** Programs that listen for something on another machine. */
const FORWARDERS = new Set(['sshd', 'sshd-session', 'ssh', 'autossh', 'dropbear']);

/** Listening addresses that a connection to 127.0.0.1 may reach: itself and the two wildcards. */
const REACHED = new Set(['127.0.0.1', '0.0.0.0', '::'].map(kernelAddress));

export interface OwnPortsDeps {
  readonly uid: number;
  readonly readSockets: () => Promise<readonly SocketRow[] | undefined>;
  readonly holders: (inode: string) => Promise<readonly SocketHolder[]>;
  readonly stillHeld: (link: string, inode: string) => boolean;
}

const KERNEL = { readSockets: readListeners, holders: holdersOf, stillHeld };

/** A listening socket of ours. */
interface Held {
  readonly inode: string;
  readonly link: string;
  readonly pid: number;
}

/** A loopback port, and the process that must hold it, if known. */
export interface PortClaim {
  readonly port: number;
  readonly pid?: number;
}

/**
 * Tells which loopback ports this user's own processes hold. A registration can outlive its opencode: another user may hold the
 * port by then and would receive the password. On a relay it may be the end of a tunnel.
 */
export class OwnPorts {
  readonly #deps: OwnPortsDeps;
  /**
   * Listeners found last. While the same process holds the same socket, nobody else can listen there; checking that costs one
   * system call, reading the kernel's table milliseconds.
   */
  readonly #known = new Map<number, readonly Held[]>();

  constructor(uid: number, deps: Omit<OwnPortsDeps, 'uid'> = KERNEL) {
    this.#deps = { uid, ...deps };
  }

  /** The claims that this user's processes hold now. */
  async ours<T extends PortClaim>(claims: readonly T[]): Promise<readonly T[]> {
    const found = new Set(claims.filter((claim) => this.#isKept(claim)));
    if (found.size === claims.length) return claims;
    const rows = (await this.#deps.readSockets()) ?? [];
    for (const claim of claims) {
      if (found.has(claim)) continue;
      const held = await this.#look(rows, claim);
      if (held.length > 0) {
        this.#known.set(claim.port, held);
        found.add(claim);
      } else this.#known.delete(claim.port);
    }
    return claims.filter((claim) => found.has(claim));
  }

  #isKept({ port, pid }: PortClaim): boolean {
    const held = this.#known.get(port) ?? [];
    return (
      held.length > 0 &&
      held.every((one) => (pid === undefined || one.pid === pid) && this.#deps.stillHeld(one.link, one.inode))
    );
  }

  /** Two sockets can share a port, on loopback and on a wildcard: unless both are ours, neither counts. */
  async #look(rows: readonly SocketRow[], { port, pid }: PortClaim): Promise<readonly Held[]> {
    const listening = rows.filter((row) => row.listening && row.local.port === port && REACHED.has(row.local.address));
    const held: Held[] = [];
    for (const row of listening) {
      const holder = row.uid === this.#deps.uid ? await this.#holderOf(row, pid) : undefined;
      if (holder === undefined) return [];
      held.push({ inode: row.inode, link: holder.link, pid: holder.pid });
    }
    return held;
  }

  async #holderOf({ inode, holder }: SocketRow, pid: number | undefined): Promise<SocketHolder | undefined> {
    if (inode === '0') return undefined;
    // Without a visible holder it does not count: sshd's sessions hide their sockets from the user they serve.
    const holders = holder === undefined ? await this.#deps.holders(inode) : [holder];
    if (holders.some(({ name }) => FORWARDERS.has(name))) return undefined;
    return pid === undefined ? holders[0] : holders.find((one) => one.pid === pid);
  }
}
