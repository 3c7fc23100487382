import { hostname } from 'node:os';

import { LinkedAbort } from '../../base/linked-abort.ts';
import type { Output } from '../../base/program.ts';
import { ownSettings } from '../../config/own-settings.ts';
import { type Settings, SettingsError } from '../../config/settings.ts';
import { type Tried, tryChannels } from '../../notify/try-channels.ts';
import { EXIT } from '../terminal/exit-codes.ts';
import { untilSignal } from '../terminal/until-signal.ts';
import { channelDeps } from './start-notifier.ts';

const ARGUMENTS = { flags: { test: 'boolean' }, positionals: false } as const;

/** Sends a test notification to each channel and prints the results. Sets the exit code: 1 if one failed. */
export async function notify(argv: readonly string[], process: NodeJS.Process, output: Output): Promise<void> {
  const { settings, warnings, flags } = await ownSettings(argv, process, ARGUMENTS);
  for (const warning of warnings) output.tell(`${warning}\n`);
  if (flags.get('test') !== 'true')
    throw new SettingsError(
      'notify: --test is missing: opencode-mcp notify --test. Notifications come from opencode-mcp node, or watch',
    );
  const { channels } = configuredNotify(settings, 'notify --test');
  const { signal, release } = untilSignal(process);
  const over = new LinkedAbort(signal);
  try {
    const tried = await tryChannels(channels, hostname(), channelDeps(over.signal), over.signal);
    output.print(tried.map(line).join(''));
    process.exitCode = tried.some(({ problem }) => problem !== undefined) ? EXIT.failed : EXIT.done;
  } finally {
    over.abort();
    release();
  }
}

/** @throws {SettingsError} there is no channel */
export function configuredNotify({ notify }: Settings, command: string): NonNullable<Settings['notify']> {
  if (notify !== undefined && notify.channels.length > 0) return notify;
  throw new SettingsError(
    `${command}: the config file has no channel; add one, such as {"notify":{"channels":[{"type":"desktop"}]}}; opencode-mcp help settings names the file, docs/notifications.md has the other channels`,
  );
}

function line({ name, label, problem, remark }: Tried): string {
  const outcome =
    problem === undefined ? `sent${remark === undefined ? '' : `, but it is ${remark}`}` : `failed: ${problem}`;
  return `${name} (${label}): ${outcome}\n`;
}
