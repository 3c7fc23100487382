import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

import type { Clock } from '../base/clock.ts';
import { reasonOf } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { quoteShort, shellWord, singleLine } from '../base/plain-text.ts';
import { readListeners } from '../base/socket-table.ts';
import type { TailnetSettings } from '../config/settings.ts';
import { LIST_PATH, readPeerList } from '../discovery/tailnet/peer-list.ts';
import { exchangeAny } from '../http/exchange.ts';
import { backendProblem, createLocalApi } from '../tailscale/local-api.ts';
import { LocalApiError, type TailnetStatus } from '../tailscale/types.ts';
import { adviceIn, check, type Check } from './report.ts';

export interface TailnetInput {
  readonly tailnet: TailnetSettings;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** This program's file; the scripts are beside its folder. */
  readonly script: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A service on this machine answers in milliseconds, after it has asked tailscaled for the caller. */
const ASK_LIMIT_MS = 3_000;
const MAX_BYTES = 1024 * 1024;
const MAX_NAME_CHARS = 100;
const UNIT = 'opencode-mcp-node';

/** Checks tailscaled and the node service of this machine. */
export async function tailnetChecks(input: TailnetInput): Promise<readonly Check[]> {
  const { tailnet, clock, signal } = input;
  let status: TailnetStatus;
  try {
    status = await createLocalApi({ socketPath: tailnet.socketPath, clock, logger: silentLogger }).status(signal);
  } catch (error) {
    signal.throwIfAborted();
    const reason = reasonOf(error);
    if (error instanceof LocalApiError && error.kind === 'missing' && tailnet.socketPath === undefined)
      return [
        check('-', 'tailscaled', 'none on this machine; machines of a tailnet can neither be found nor find this one'),
      ];
    return [check('broken', 'tailscaled', reason, { advice: adviceIn(reason) })];
  }
  const problem = backendProblem(status.backendState);
  if (problem !== undefined) {
    const text = `state ${quoteShort(status.backendState, 40)}: ${problem}`;
    return [check('broken', 'tailscaled', text, { advice: adviceIn(text) })];
  }
  const { self, tun, version = 'unknown version' } = status;
  const name = quoteShort(self?.dnsName || self?.hostName || 'this machine', MAX_NAME_CHARS);
  const addresses = self?.addresses ?? [];
  const how = tun ? '' : ', without a TUN device: connections go through it';
  return [
    check(
      'ok',
      'tailscaled',
      `running, ${singleLine(version.split('-', 1)[0] ?? '', 30)}; ${name}, ${addresses.join(', ')}${how}`,
    ),
    await nodeServiceCheck(input, tun ? (addresses[0] ?? '127.0.0.1') : '127.0.0.1'),
  ];
}

async function nodeServiceCheck(input: TailnetInput, address: string): Promise<Check> {
  const { tailnet, clock, signal } = input;
  const subject = 'node service';
  const place = `${address.includes(':') ? `[${address}]` : address}:${tailnet.nodePort}`;
  try {
    const answer = await exchangeAny(
      {
        method: 'GET',
        url: `http://${place}${LIST_PATH}`,
        headers: { accept: 'application/json' },
        pooled: false,
        label: 'the node service',
      },
      { timeoutMs: ASK_LIMIT_MS, maxBytes: MAX_BYTES, clock, signal },
    );
    if (isNodeService(answer))
      return check('ok', subject, `serves this user's instances at ${place}${await ownerText(tailnet.nodePort)}`);
    return check(
      'broken',
      subject,
      `something else answers at ${place} (HTTP ${answer.status})${await ownerText(tailnet.nodePort)}`,
      {
        advice: { text: 'end the program on that port, or set OPENCODE_NODE_PORT to another on all machines' },
      },
    );
  } catch (error) {
    signal.throwIfAborted();
    return notRunning(input, subject, place, reasonOf(error));
  }
}

/** The service refuses its own machine, or cannot identify the caller yet; it is known by its words. */
function isNodeService({ status, text }: { readonly status: number; readonly text: string }): boolean {
  if (status === 200) return !('problem' in readPeerList(text));
  return [403, 421, 503].includes(status) && /You appear to be|tailscaled|tailnet/.test(text);
}

async function ownerText(port: number): Promise<string> {
  const uid = (await readListeners())?.find(({ local }) => local.port === port)?.uid;
  return uid === undefined || uid === process.geteuid?.()
    ? ''
    : `, of another user (uid ${uid}), whose instances it serves`;
}

function notRunning({ script, env }: TailnetInput, subject: string, place: string, reason: string): Check {
  const user = join(env['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'systemd', 'user', `${UNIT}.service`);
  const agent = join(homedir(), 'Library', 'LaunchAgents', 'opencode-mcp.node.plist');
  const what = `does not answer at ${place}: ${reason}`;
  const install = `sh ${shellWord(join(dirname(dirname(script)), 'scripts', 'install-node.sh'))}`;
  if (existsSync(user))
    return check('broken', subject, what, {
      advice: {
        text: `start it; journalctl --user -u ${UNIT} shows why it ended`,
        command: `systemctl --user restart ${UNIT}`,
      },
    });
  if (existsSync(agent) || existsSync(`/etc/systemd/system/${UNIT}@.service`))
    return check('broken', subject, what, {
      advice: { text: 'start it again by its installer', command: install },
    });
  return check(
    '-',
    subject,
    `not installed, so other machines do not see this one's instances; to serve them: ${install}`,
  );
}
