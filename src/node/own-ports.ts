import { execFile } from 'node:child_process';
import { holderNames, readSocketTable, type SocketRow } from './socket-table.ts';

/** They listen on a port for something that runs elsewhere. */
const FORWARDERS = new Set(['sshd', 'sshd-session', 'ssh', 'autossh', 'dropbear']);

/** Listening addresses that a connection to 127.0.0.1 may reach: that, every IPv4, every IPv6. */
const REACHED = new Set(['0100007F', '7F000001', '00000000', '0'.repeat(32)]);

/** `lsof` answers in tens of milliseconds. */
const LSOF_LIMIT_MS = 3000;

export interface OwnPortsDeps {
  readonly uid: number;
  readonly readSockets: () => Promise<readonly SocketRow[] | undefined>;
  readonly holders: (inode: string) => Promise<ReadonlySet<string>>;
}

/**
 * Tells which loopback ports this user's own processes hold. A registration may outlive its opencode, and its port
 * may by now be another user's, who would be sent the password; on a relay it may be the end of a tunnel.
 */
export class OwnPorts {
  readonly #deps: OwnPortsDeps;
  /** Of listening sockets: a socket never changes hands, and looking through every process is slow. */
  #verdicts = new Map<string, boolean>();

  constructor(uid: number, deps: Omit<OwnPortsDeps, 'uid'> = { readSockets: readSocketTable, holders: holderNames }) {
    this.#deps = { uid, ...deps };
  }

  /** The ones of `ports` that are ours now. */
  async ours(ports: readonly number[]): Promise<ReadonlySet<number>> {
    if (ports.length === 0) return new Set();
    const rows = await this.#deps.readSockets();
    if (rows === undefined) return lsofPorts(this.#deps.uid, ports);
    const wanted = new Set(ports);
    const listening = rows.filter(
      ({ listening, local }) => listening && wanted.has(local.port) && REACHED.has(local.address.toUpperCase()),
    );
    const verdicts = new Map<string, boolean>();
    for (const { uid, inode } of listening) verdicts.set(inode, uid === this.#deps.uid && (await this.#isOurs(inode)));
    this.#verdicts = verdicts;
    return new Set(ports.filter((port) => holdsAll(listening, port, verdicts)));
  }

  async #isOurs(inode: string): Promise<boolean> {
    if (inode === '0') return false;
    const known = this.#verdicts.get(inode);
    if (known !== undefined) return known;
    // Nobody to be seen: sshd's sessions hide theirs from the very user they serve.
    const names = await this.#deps.holders(inode);
    return names.size > 0 && [...names].every((name) => !FORWARDERS.has(name));
  }
}

/** Two may listen on one port, on loopback and on every address: both must be ours. */
function holdsAll(rows: readonly SocketRow[], port: number, verdicts: ReadonlyMap<string, boolean>): boolean {
  const here = rows.filter(({ local }) => local.port === port);
  return here.length > 0 && here.every(({ inode }) => verdicts.get(inode) === true);
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
