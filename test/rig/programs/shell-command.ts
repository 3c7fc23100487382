import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { SERVER_SCRIPT } from './mcp-child.ts';
import { NO_MULTICAST } from '../no-multicast.ts';
import { until } from '../wait.ts';

/** The shell command that runs the built program. */
export const OPENCODE_MCP = `${process.execPath} ${SERVER_SCRIPT}`;

/** A run of `opencode-mcp` with pipes for its streams. */
export interface ShellRun {
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>;
  kill(signal: NodeJS.Signals): void;
  /** Resolves once stdout matches. */
  shows(pattern: RegExp): Promise<void>;
}

/** The whole environment of a `ShellRun`. */
export function shellEnv(home: string, registry: string): Readonly<Record<string, string>> {
  return {
    PATH: process.env['PATH'] ?? '',
    HOME: home,
    LANG: 'C.UTF-8',
    TERM: 'xterm-256color',
    RELAY_REGISTRY_DIR: registry,
    TRANSPORT: 'local-relay',
    HEALTH_CHECK_TIMEOUT_MS: '15000',
    ...NO_MULTICAST,
  };
}

/** Runs the built program with `input` as its standard input. */
export function runShell(args: readonly string[], env: Readonly<Record<string, string>>, input = ''): ShellRun {
  const child = spawn(process.execPath, [SERVER_SCRIPT, ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  return {
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    ended: once(child, 'close').then(() => child.exitCode),
    kill: (signal) => void child.kill(signal),
    shows: async (pattern) => void (await until(`stdout to show ${pattern}`, () => pattern.test(output.stdout))),
  };
}
