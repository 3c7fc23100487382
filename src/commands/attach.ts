import { randomBytes } from 'node:crypto';

import { isDirect } from '../attach/direct.ts';
import { LOOPBACK, openForwarder } from '../attach/forwarder.ts';
import { checkDirectory, findProgram, launchFor } from '../attach/program.ts';
import { runInTerminal } from '../attach/terminal-program.ts';
import { SettingsError } from '../config/settings.ts';
import { SERVICE_SOURCE } from '../discovery/service/service.ts';
import { OperationError, quoteName } from '../operations/answer.ts';
import { type Shell, type ShellCommand, takeNames } from './terminal/shell.ts';
import { endpointOf, findTarget, type ShownTarget } from './terminal/target.ts';

const PASSWORD_BYTES = 32;

export const ATTACH: ShellCommand = {
  arguments: { flags: {}, positionals: true },
  changes: true,
  run: async (shell) => {
    const { process, settings } = shell;
    const [instance = '', session_id] = takeNames('attach', shell, { needed: ['NAME'], optional: ['SESSION'] });
    if (!process.stdin.isTTY || !process.stdout.isTTY)
      throw new SettingsError('attach: there is no terminal to open opencode in; read and send work without one');
    const target = await findTarget(shell, 'attach', { instance, session_id });
    const { connected, directory, session } = target;
    const { dialect, connection } = connected;
    if (dialect === 'opencode-2-preview') return await openPreview(shell, target);
    const program = await findProgram(dialect, settings.connected.opencodeBin, process.env);
    if (dialect === 'opencode-1' && directory !== undefined) await checkDirectory(directory);
    const password = isDirect(connection) ? undefined : randomBytes(PASSWORD_BYTES).toString('base64url');
    const endpoint = endpointOf(shell, connected);
    const forwarder = password === undefined ? undefined : await openForwarder(endpoint, password);
    const url = forwarder === undefined ? connection.endpoint.url : `http://${LOOPBACK}:${forwarder.port}`;
    const launch = launchFor({ dialect, url, password, directory, session: session?.id }, process.env);
    try {
      return await open(shell, { program, ...launch });
    } finally {
      forwarder?.close();
    }
  },
};

type Opening = Pick<Parameters<typeof runInTerminal>[0], 'program' | 'args' | 'env' | 'cwd'>;

function open(shell: Shell, opening: Opening): Promise<number> {
  const { process, signal } = shell;
  shell.quiet();
  return runInTerminal({ ...opening, process, signal, onInterrupt: (act) => shell.onInterrupt(act) });
}

/** The preview's terminal takes no URL: it opens only on this user's own service on this machine. */
async function openPreview(shell: Shell, { connected, session }: ShownTarget): Promise<number> {
  const { instance, connection, directory } = connected;
  const isOwn = instance.server.endpoints.some(
    ({ candidate }) => candidate.source === SERVICE_SOURCE && candidate.endpoint.url === connection.endpoint.url,
  );
  const name = quoteName(instance.name);
  if (!isOwn)
    throw new OperationError(
      `${name} is the preview of OpenCode 2, whose terminal opens on the service of its own machine and user only. Run lildax there; from here read, send and wait work.`,
    );
  if (session !== undefined)
    throw new OperationError(
      `${name} is the preview of OpenCode 2, whose terminal cannot open a given session: leave SESSION out, and choose it there.`,
    );
  const { process, settings } = shell;
  const program = await findProgram('opencode-2-preview', settings.connected.opencodeBin, process.env);
  const { env } = launchFor(
    { dialect: 'opencode-2-preview', url: '', password: undefined, directory: undefined, session: undefined },
    process.env,
  );
  return await open(shell, { program, args: [], env, cwd: directory === '' ? undefined : directory });
}
