import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { messageOf, reasonOf } from '../base/errors.ts';
import { quoteName, quoteShort, shellWord, singleLine } from '../base/plain-text.ts';
import type { Settings } from '../config/settings.ts';
import { RelayConnection } from '../connected/relay/relay-connection.ts';
import { relayCommand } from '../connected/relay/ssh-command.ts';
import { readRunStates, type RunStateFile } from '../connected/run-state.ts';
import type { RegistrySurvey } from '../connected/survey/registry-survey.ts';
import { relayRegistry } from '../connected/survey/relay-registry.ts';
import { adviceIn, type Advice, check, type Check, pathName } from './report.ts';

export interface RelayInput {
  readonly settings: Pick<Settings, 'connected' | 'stateDir'>;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** A login across an ocean takes up to 2 s. If it takes much longer, running the command by hand shows why. */
const RELAY_LIMIT_MS = 12_000;
/** The trial's tunnel leads to this port, on which nothing listens (tcpmux, obsolete). */
const UNUSED_PORT = 1;
const MAX_WRAPPERS = 50;

/** Checks the relay, and every `opencode-connected` of this user on this machine. */
export async function relayChecks(input: RelayInput): Promise<readonly Check[]> {
  const [states, relay] = await Promise.all([readRunStates(input.settings.stateDir).catch(() => []), askRelay(input)]);
  const running = states.filter(({ isRunning }) => isRunning);
  const left = states.length - running.length;
  const cleanup = { text: 'remove what they left behind', command: 'opencode-connected cleanup' };
  return [
    ...relay,
    ...running.slice(0, MAX_WRAPPERS).map(wrapperCheck),
    ...(left === 0
      ? []
      : [check('warn', 'opencode-connected', `${left} ended without cleaning up`, { advice: cleanup })]),
  ];
}

async function askRelay({ settings: { connected }, clock, signal }: RelayInput): Promise<readonly Check[]> {
  const written = connected.relaySshCommand;
  if (written === undefined)
    return [check('-', 'relay', 'not set (RELAY_SSH_CMD): instances register on this machine only')];
  let sshCommand: readonly string[];
  try {
    sshCommand = relayCommand(written);
  } catch (error) {
    return [
      check('broken', 'RELAY_SSH_CMD', messageOf(error), { advice: { text: `correct it: ${messageOf(error)}` } }),
    ];
  }
  const registryDir = connected.relayRegistryDir;
  const within = { clock, signal };
  const [survey, tunnel] = await Promise.all([
    limited(within, (cut) => relayRegistry({ sshCommand, registryDir }).survey(cut)),
    limited(within, (cut) => tryTunnel(sshCommand, clock, cut)),
  ]);
  if (typeof survey === 'string' && typeof tunnel === 'string' && !isAboutTunnel(tunnel))
    return [
      check('broken', 'ssh', survey, {
        advice: { text: 'make this work without a question', command: `${written} true` },
      }),
    ];
  const host = typeof survey === 'string' ? 'the relay' : quoteName(survey.host || 'the relay');
  const uid = typeof survey === 'string' || survey.uid === undefined ? '' : ` as uid ${survey.uid}`;
  return [check('ok', 'ssh', `reaches ${host}${uid}`), tunnelCheck(tunnel), registryCheck(survey, written)];
}

/** The result of `work`, or why it failed. Waits until `work` ends, even after the time limit, so that no ssh is left. */
async function limited<T>(
  { clock, signal }: Pick<RelayInput, 'clock' | 'signal'>,
  work: (cut: AbortSignal) => Promise<T>,
): Promise<T | string> {
  const cut = new LinkedAbort(signal);
  let isLate = false;
  void clock.sleep(RELAY_LIMIT_MS, cut.signal).then(() => {
    isLate = !cut.signal.aborted;
    cut.abort();
  });
  try {
    return await work(cut.signal);
  } catch (error) {
    signal.throwIfAborted();
    return isLate ? `no answer within ${RELAY_LIMIT_MS / 1000} s` : reasonOf(error);
  } finally {
    cut.end();
  }
}

/** Opens a tunnel as `opencode-connected` does, and closes it. Creates nothing on the relay. `isUnseen`: the relay could not check that the tunnel is closed to other machines. */
async function tryTunnel(
  sshCommand: readonly string[],
  clock: Clock,
  signal: AbortSignal,
): Promise<{ readonly isUnseen: boolean }> {
  const connection = await RelayConnection.open(
    {
      sshCommand,
      localPort: UNUSED_PORT,
      interactive: false,
      header: ['probe yes', ''],
      registration: () => undefined,
      clock,
    },
    signal,
  );
  await connection.close();
  return { isUnseen: connection.isUnseen };
}

function isAboutTunnel(reason: string): boolean {
  return /gave no port to the tunnel|GatewayPorts|did not say which port/.test(reason);
}

function tunnelCheck(tunnel: Awaited<ReturnType<typeof tryTunnel>> | string): Check {
  const subject = 'forwarding';
  if (typeof tunnel === 'string') return check('broken', subject, tunnel, { advice: tunnelAdvice(tunnel) });
  if (!tunnel.isUnseen) return check('ok', subject, 'allowed, and closed to other machines (GatewayPorts)');
  return check('warn', subject, 'allowed; the relay cannot check whether the tunnel is open to other machines', {
    advice: { text: 'make sure that its sshd_config has', command: 'GatewayPorts no' },
  });
}

function tunnelAdvice(reason: string): Advice {
  const there = "in the relay's sshd_config (/etc/ssh/sshd_config), then reload its sshd:";
  if (reason.includes('GatewayPorts')) return { text: `set this ${there}`, command: 'GatewayPorts no' };
  if (reason.includes('gave no port')) return { text: `set this ${there}`, command: 'AllowTcpForwarding yes' };
  return adviceIn(reason) ?? { text: 'try again; ssh answered, but the tunnel failed' };
}

function registryCheck(survey: RegistrySurvey | string, written: string): Check {
  const subject = 'registry there';
  if (typeof survey === 'string') return check('broken', subject, survey, { advice: adviceIn(survey) });
  const { directory, isMissing, ownerUid, uid, isOursAlone, registrations, leftOut } = survey;
  const place = pathName(directory);
  if (isMissing) return check('ok', subject, `${place}: not created yet; the first opencode-connected creates it`);
  if (ownerUid !== uid)
    return check(
      'broken',
      subject,
      `${place} belongs to uid ${ownerUid ?? 'unknown'}, but ssh logs in as uid ${uid ?? 'unknown'}`,
      {
        advice: {
          text: 'register in another directory: set this for opencode-connected',
          command: 'RELAY_REMOTE_REGISTRY_DIR=~/.local/state/opencode-mcp/registry',
        },
      },
    );
  if (!isOursAlone)
    return check('broken', subject, `${place} can be written by its group or by others`, {
      advice: { text: 'close it', command: `${written} ${shellWord(`chmod go-w ${shellWord(directory)}`)}` },
    });
  return check(
    'ok',
    subject,
    `${place}, of uid ${ownerUid ?? 'unknown'}, registrations: ${registrations.length + leftOut}`,
  );
}

function wrapperCheck({ state: { name, pid, relay, logFile } }: RunStateFile): Check {
  const subject = quoteShort(name, 128);
  const who = `opencode-connected, pid ${pid}`;
  if (relay === undefined) return check('ok', subject, `${who}, without a relay`);
  const { kind, name: there = '?', port = 0, reason = 'unknown reason' } = relay;
  if (kind === 'connected')
    return check('ok', subject, `${who}, on the relay as ${quoteShort(there, 128)}, port ${port} there`);
  if (kind === 'connecting') return check('warn', subject, `${who}, connecting to the relay`);
  const again =
    kind === 'closed' ? 'repair that, then end it and start it again' : 'repair that; it reconnects by itself';
  return check('broken', subject, `${who}, is not on the relay: ${singleLine(reason, 400)}`, {
    advice: { text: `${again}; its log is ${shellWord(singleLine(logFile, 300))}` },
  });
}
