import { isDirect } from '../attach/direct.ts';
import { isOwnPeer } from '../attach/own-peer.ts';
import type { OpenDoor } from '../attach/door.ts';
import { openWebForwarder } from '../attach/web-forwarder.ts';
import { exchange } from '../http/exchange.ts';
import { OperationError, quoteName } from '../operations/answer.ts';
import { latestSession } from '../operations/sessions/session-query.ts';
import { EXIT } from './terminal/exit-codes.ts';
import { showInBrowser } from './terminal/show-in-browser.ts';
import { type Shell, type ShellCommand, takeNames } from './terminal/shell.ts';
import { endpointOf, findTarget, type ShownTarget } from './terminal/target.ts';
import { refuseWhileRevoked, REVOKED, untilRevoked } from './terminal/until-revoked.ts';

export const OPEN: ShellCommand = {
  arguments: { flags: { print: 'boolean' }, positionals: true },
  changes: true,
  run: async (shell) => {
    const [instance = '', session_id] = takeNames('open', shell, { needed: ['NAME'], optional: ['SESSION'] });
    const target = await findTarget(shell, 'open', { instance, session_id });
    await checkPage(target, shell.signal);
    const start = await startOf(target);
    const { connection } = target.connected;
    if (isDirect(connection)) {
      await showInBrowser(shell, connection.endpoint.url + start);
      return EXIT.done;
    }
    refuseWhileRevoked(shell);
    const forwarder = await forward(shell, target, start);
    try {
      const isOver = untilRevoked(shell);
      await showInBrowser(shell, forwarder.url);
      shell.tell(
        `${quoteName(target.connected.instance.name)} is in the browser that opens this first, until Ctrl-C here.\n`,
      );
      if ((await isOver) === 'revoked') throw new OperationError(REVOKED);
    } finally {
      forwarder.close();
    }
    return EXIT.done;
  },
};

const PAGE_LIMITS = { timeoutMs: 15_000, maxBytes: 1024 * 1024 };

/** @throws {OperationError} there is no page */
async function checkPage({ connected }: ShownTarget, signal: AbortSignal): Promise<void> {
  const { connection, instance, dialect } = connected;
  const { status, headers } = await exchange(connection, '/', { anyType: true }, { ...PAGE_LIMITS, signal });
  if (status === 200 && /^text\/html\b/i.test(headers['content-type'] ?? '')) return;
  const why = dialect === 'opencode-2-preview' ? ': the preview of OpenCode 2 has none' : '';
  throw new OperationError(
    `${quoteName(instance.name)} serves no web page (HTTP ${status})${why}. opencode-mcp attach opens its terminal; read and send work.`,
  );
}

/** The page of the session, or of the latest one; without a session, the first page. */
async function startOf({ connected, session }: ShownTarget): Promise<string> {
  if (connected.dialect !== 'opencode-1') {
    if (session === undefined) return '/';
    throw new OperationError(
      'The page of an OpenCode 2 cannot be opened on a session from here: leave SESSION out, and choose it there.',
    );
  }
  const { id, directory } = session ?? (await latestSession(connected)) ?? {};
  if (id === undefined || directory === undefined) return '/';
  return `/${Buffer.from(directory).toString('base64url')}/session/${id}`;
}

async function forward(shell: Shell, { connected }: ShownTarget, start: string): Promise<OpenDoor> {
  return await openWebForwarder({ endpoint: endpointOf(shell, connected), start, isOwnPeer });
}
