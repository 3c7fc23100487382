import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { type FakeNtfy, type NtfyMessage, startFakeNtfy } from '../rig/fake/fake-ntfy.ts';
import { runShell, shellEnv, type ShellRun } from '../rig/programs/shell-command.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

/** `opencode-mcp watch` as a process, with a home of its own and one topic to notify. */
export interface WatchCommand extends AsyncDisposable {
  readonly ntfy: FakeNtfy;
  readonly env: Readonly<Record<string, string>>;
  /** Resolves once it watches. */
  start(): Promise<void>;
  /** Resolves with its log. */
  end(): Promise<string>;
  /** Waits for a notification with this title. */
  says(title: RegExp): Promise<NtfyMessage>;
}

export const TOPIC = 'ada-agents';
export const TOKEN = 'tk_s3cret-of-the-topic';

export async function openWatchCommand(
  registry: string,
  more: Readonly<Record<string, string>> = {},
): Promise<WatchCommand> {
  const temp = tempDir('opencode-mcp-watch');
  const ntfy = await startFakeNtfy({ token: TOKEN });
  const folder = join(temp.path, '.config', 'opencode-mcp');
  await mkdir(folder, { recursive: true });
  const channel = { type: 'ntfy', url: ntfy.url, topic: TOPIC, token: { env: 'NTFY_TOKEN' } };
  const config = { notify: { channels: [channel], minTurnSeconds: 0 } };
  await writeFile(join(folder, 'config.json'), JSON.stringify(config), { mode: 0o600 });
  const env = { ...shellEnv(temp.path, registry), NTFY_TOKEN: TOKEN, ...more };
  let running: ShellRun | undefined;

  async function end(): Promise<string> {
    const ended = running;
    running = undefined;
    ended?.kill('SIGTERM');
    await within(Promise.resolve(ended?.ended), 'it to end');
    return ended?.stderr() ?? '';
  }

  return {
    ntfy,
    env,
    async start() {
      const started = runShell(['watch', '--log-level', 'debug'], env);
      running = started;
      await until('it to watch', () => /info notifying/.test(started.stderr()));
    },
    end,
    says: (title) =>
      until(`ntfy to say ${title}`, () => ntfy.messages.find((message) => title.test(message.title ?? ''))),
    async [Symbol.asyncDispose]() {
      await end();
      await ntfy.close();
      await temp.close();
    },
  };
}
