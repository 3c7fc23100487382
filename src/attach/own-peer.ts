import { execFile } from 'node:child_process';
import type { Socket } from 'node:net';
import { release } from 'node:os';
import { readSocketTable } from '../base/socket-table.ts';

/** `lsof` answers in tens of milliseconds. */
const LSOF_LIMIT_MS = 3_000;

/** Whether the other end of a loopback connection belongs to this user, or to root, who may do anything. False if its owner is unknown. */
export async function isOwnPeer({ remotePort, localPort }: Pick<Socket, 'remotePort' | 'localPort'>): Promise<boolean> {
  const uid = process.geteuid?.();
  const rows = await readSocketTable();
  if (rows === undefined) return await ownByLsof(uid, remotePort);
  const ends = rows.filter(({ local, remote }) => local.port === remotePort && remote.port === localPort);
  // In WSL, the table does not show the browser of Windows.
  if (ends.length === 0) return /microsoft/i.test(release());
  // A socket that its process has closed (inode 0) shows as root's.
  return ends.every((end) => end.inode !== '0' && (end.uid === uid || end.uid === 0));
}

/** For macOS. Without root's rights, lsof shows only this user's sockets. This process holds the near end. */
function ownByLsof(uid: number | undefined, port: number | undefined): Promise<boolean> {
  const limits = { timeout: LSOF_LIMIT_MS, killSignal: 'SIGKILL' } as const;
  return new Promise((resolve) => {
    execFile('lsof', ['-nP', '-a', `-u${uid}`, `-iTCP:${port}`, '-t'], limits, (_, stdout) =>
      resolve(stdout.split('\n').some((pid) => pid !== '' && pid !== String(process.pid))),
    );
  });
}
