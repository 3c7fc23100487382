import { execFile } from 'node:child_process';
import type { Socket } from 'node:net';
import { release } from 'node:os';
import { readSocketTable } from '../base/socket-table.ts';

/** `lsof` answers in tens of milliseconds. */
const LSOF_LIMIT_MS = 3_000;

/**
 * Whether the program at the other end of a loopback connection is this user's, or root's, who may do anything. What this
 * system does not tell is no.
 */
export async function isOwnPeer({ remotePort, localPort }: Pick<Socket, 'remotePort' | 'localPort'>): Promise<boolean> {
  const uid = process.geteuid?.();
  const rows = await readSocketTable();
  if (rows === undefined) return await ownByLsof(uid, remotePort);
  const ends = rows.filter(({ local, remote }) => local.port === remotePort && remote.port === localPort);
  // The browser of Windows is in no table of WSL.
  if (ends.length === 0) return /microsoft/i.test(release());
  // What its process has closed shows as root's, whosever it was.
  return ends.every((end) => end.inode !== '0' && (end.uid === uid || end.uid === 0));
}

/** macOS. Without root's rights it shows the sockets of this user only; this process holds the near end. */
function ownByLsof(uid: number | undefined, port: number | undefined): Promise<boolean> {
  const limits = { timeout: LSOF_LIMIT_MS, killSignal: 'SIGKILL' } as const;
  return new Promise((resolve) => {
    execFile('lsof', ['-nP', '-a', `-u${uid}`, `-iTCP:${port}`, '-t'], limits, (_, stdout) =>
      resolve(stdout.split('\n').some((pid) => pid !== '' && pid !== String(process.pid))),
    );
  });
}
