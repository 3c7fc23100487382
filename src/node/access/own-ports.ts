import { execFile } from 'node:child_process';
import { holdersOf, readSocketTable, type SocketHolder, type SocketRow, stillHeld } from '../../base/socket-table.ts';

/** They listen on a port for something that runs elsewhere. */
const FORWARDERS = new Set(['sshd', 'sshd-session', 'ssh', 'autossh', 'dropbear']);

/** Listening addresses that a connection to 127.0.0.1 may reach: that, every IPv4, every IPv6. */
const REACHED = new Set(['0100007F', '7F000001', '00000000', '0'.repeat(32)]);

/** `lsof` answers in tens of milliseconds. */
const LSOF_LIMIT_MS = 3000;

export interface OwnPortsDeps {
  readonly uid: number;
  readonly readSockets: () => Promise<readonly SocketRow[] | undefined>;
  readonly holders: (inode: string) => Promise<readonly SocketHolder[]>;
  readonly stillHeld: (link: string, inode: string) => boolean;
}

const KERNEL = { readSockets: readSocketTable, holders: holdersOf, stillHeld };

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
   * is seen in no time; the kernel's table takes 4 to 20 ms.
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
    const rows = await this.#deps.readSockets();
    if (rows === undefined) return lsofPorts(this.#deps.uid, ports);
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
    const listening = rows.filter(
      (row) => row.listening && row.local.port === port && REACHED.has(row.local.address.toUpperCase()),
    );
    const held: Held[] = [];
    for (const { uid, inode } of listening) {
      const link = uid === this.#deps.uid ? await this.#linkOf(inode) : undefined;
      if (link === undefined) return [];
      held.push({ inode, link });
    }
    return held;
  }

  async #linkOf(inode: string): Promise<string | undefined> {
    if (inode === '0') return undefined;
    // Nobody to be seen: sshd's sessions hide theirs from the very user they serve.
    const holders = await this.#deps.holders(inode);
    return holders.some(({ name }) => FORWARDERS.has(name)) ? undefined : holders[0]?.link;
  }
}

/** macOS: `lsof` names the command (`c`) and the address (`n`) of each of this user's listening sockets. */
function lsofPorts(uid: number, ports: readonly number[]): Promise<ReadonlySet<number>> {
  const args = ['-nP', '-a', `-u${uid}`, '-iTCP', '-sTCP:LISTEN', '-Fcn'];
  return new Promise((resolve) => {
    execFile('lsof', args, { timeout: LSOF_LIMIT_MS, killSignal: 'SIGKILL' }, (_, stdout) => {
      const found = new Set<number>();
      let command = '';
      for (const line of stdout.split('\n')) {
        if (line.startsWith('c')) command = line.slice(1);
        const port = /^n(?:\*|127\.0\.0\.1|\[::\]):(\d+)$/.exec(line)?.[1];
        if (port !== undefined && !FORWARDERS.has(command)) found.add(Number(port));
      }
      resolve(new Set(ports.filter((port) => found.has(port))));
    });
  });
}
