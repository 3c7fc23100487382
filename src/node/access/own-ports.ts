import {
  holdersOf,
  kernelAddress,
  readListeners,
  type SocketHolder,
  type SocketRow,
  stillHeld,
} from '../../base/socket-table.ts';

/** They listen on a port for something that runs elsewhere. */
const FORWARDERS = new Set(['sshd', 'sshd-session', 'ssh', 'autossh', 'dropbear']);

/** Listening addresses that a connection to 127.0.0.1 may reach: that, every IPv4, every IPv6. */
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
}

/**
 * Tells which loopback ports this user's own processes hold. A registration may outlive its opencode, and its port
 * may by now be another user's, who would be sent the password; on a relay it may be the end of a tunnel.
 */
export class OwnPorts {
  readonly #deps: OwnPortsDeps;
  /**
   * What listened at the last look. While the same process holds the same socket nobody else can listen there, and that
   * is seen in no time; the kernel's table takes milliseconds.
   */
  readonly #known = new Map<number, readonly Held[]>();

  constructor(uid: number, deps: Omit<OwnPortsDeps, 'uid'> = KERNEL) {
    this.#deps = { uid, ...deps };
  }

  /** The ones of `ports` that are ours now. */
  async ours(ports: readonly number[]): Promise<ReadonlySet<number>> {
    const found = new Set(ports.filter((port) => this.#isKept(port)));
    const open = ports.filter((port) => !found.has(port));
    if (open.length === 0) return found;
    const rows = (await this.#deps.readSockets()) ?? [];
    for (const port of open) {
      const held = await this.#look(rows, port);
      if (held.length > 0) {
        this.#known.set(port, held);
        found.add(port);
      } else this.#known.delete(port);
    }
    return found;
  }

  #isKept(port: number): boolean {
    const held = this.#known.get(port) ?? [];
    return held.length > 0 && held.every(({ link, inode }) => this.#deps.stillHeld(link, inode));
  }

  /** Two may listen on one port, on loopback and on every address: both must be ours, or none counts. */
  async #look(rows: readonly SocketRow[], port: number): Promise<readonly Held[]> {
    const listening = rows.filter((row) => row.listening && row.local.port === port && REACHED.has(row.local.address));
    const held: Held[] = [];
    for (const row of listening) {
      const link = row.uid === this.#deps.uid ? await this.#linkOf(row) : undefined;
      if (link === undefined) return [];
      held.push({ inode: row.inode, link });
    }
    return held;
  }

  async #linkOf({ inode, holder }: SocketRow): Promise<string | undefined> {
    if (inode === '0') return undefined;
    // Nobody to be seen: sshd's sessions hide theirs from the very user they serve.
    const holders = holder === undefined ? await this.#deps.holders(inode) : [holder];
    return holders.some(({ name }) => FORWARDERS.has(name)) ? undefined : holders[0]?.link;
  }
}
