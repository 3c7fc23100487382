import { spawn } from 'node:child_process';

import { messageOf } from '../base/errors.ts';
import { quoted, shellWord } from '../base/plain-text.ts';
import { ReportedError } from '../base/program.ts';
import type { Words } from './clients.ts';

/** A connection takes a second or two, and 10 s at most to be refused; an interactive shell with a framework some more. */
const SSH_LIMIT_MS = 20_000;
/** The answers are a few lines; a login script that prints megabytes must not fill the memory. */
const MAX_OUTPUT_CHARS = 64 * 1024;
const MAX_WORDS_CHARS = 300;

/** Nobody can answer ssh's questions in a client, and a connection that is gone ends after 45 s. */
const OPTIONS = ['-o', 'BatchMode=yes', '-o', 'ConnectTimeout=10', '-o', 'ServerAliveInterval=15'];

export interface RelayCommand {
  /** What a client runs. */
  readonly words: Words;
  /** What is as it should not be, though it works. */
  readonly warnings: readonly string[];
}

/** What ssh takes for the other end, and not for an option. */
export const DESTINATION = /^[^\s-]\S*$/;

/**
 * The command that reaches the server by ssh, tried once: without a terminal, as a client runs it. Each of up to three connections
 * gets `limitMs`.
 * @throws {ReportedError} it cannot be reached, or does not find opencode-mcp there; with what mends it
 */
export async function remoteServerCommand(
  ssh: string,
  destination: string,
  limitMs = SSH_LIMIT_MS,
): Promise<RelayCommand> {
  const words = (remote: string): Words => [ssh, ...OPTIONS, destination, remote];
  const say = (remote: string): Promise<Ended> => run(words(remote), limitMs);

  const direct = await say('opencode-mcp --version');
  if (isVersion(direct)) return { words: words('opencode-mcp'), warnings: [] };
  if (direct.code === undefined || direct.code === 255)
    throw new ReportedError(unreachable(destination, direct, limitMs));
  if (direct.code === 0) throw new ReportedError(noisy(destination, direct));

  // What a person's own shell finds: version managers set their PATH for interactive shells only.
  const looked = await say(`"$SHELL" -ilc 'command -v node; command -v opencode-mcp'`);
  const node = lastLine(looked, /^\/.*\/node$/);
  const program = lastLine(looked, /^\/.*\/opencode-mcp$/);
  if (program === undefined || node === undefined) {
    const reason = direct.stderr.trim() === '' ? '' : ` It said ${quoted(direct.stderr, MAX_WORDS_CHARS)}.`;
    throw new ReportedError(
      `opencode-mcp was not found on ${destination}, neither by ssh without a terminal nor by a login shell.${reason} ` +
        `Install it there, see that \`ssh ${destination} opencode-mcp --version\` prints its version, and run this again.`,
    );
  }
  const absolute = `${shellWord(node)} ${shellWord(program)}`;
  const tried = await say(`${absolute} --version`);
  if (!isVersion(tried))
    throw new ReportedError(tried.code === 0 ? noisy(destination, tried) : unreachable(destination, tried, limitMs));
  return {
    words: words(absolute),
    warnings: [
      `on ${destination} opencode-mcp is not on the PATH of a shell without a terminal, so its path there is used: ${program}. ` +
        `When that moves, run init again; or link it and node into a folder of that PATH (ssh ${destination} 'echo $PATH'), and run init again`,
    ],
  };
}

interface Ended {
  /** Undefined where it took too long or could not be started. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

function isVersion({ code, stdout }: Ended): boolean {
  return code === 0 && /^\d+\.\d+\.\d+\S*\n$/.test(stdout);
}

function unreachable(destination: string, { code, stderr }: Ended, limitMs: number): string {
  const words = stderr.trim() === '' ? 'nothing' : quoted(stderr, MAX_WORDS_CHARS);
  const how = code === undefined ? `did not answer within ${limitMs / 1000} s` : `ended with code ${code}`;
  const hint = /Permission denied/.test(stderr)
    ? `a client cannot type a password: ssh-copy-id ${destination}, and keep the key in ssh-agent`
    : /Host key verification failed/.test(stderr)
      ? `run ssh ${destination} once and confirm its key`
      : `see that \`ssh ${destination} true\` works without a question`;
  return `ssh to ${destination} ${how} and said ${words}; ${hint}, then run this again`;
}

function noisy(destination: string, { stdout }: Ended): string {
  return (
    `\`ssh ${destination} opencode-mcp --version\` printed ${quoted(stdout, MAX_WORDS_CHARS)} where a version was expected: a start-up ` +
    `file of the shell there prints something without a terminal too, which no MCP client understands. Let it print only in an ` +
    `interactive shell: case $- in *i*) … ;; esac`
  );
}

function lastLine({ stdout }: Ended, pattern: RegExp): string | undefined {
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .findLast((line) => pattern.test(line));
}

function run([program, ...args]: Words, limitMs: number): Promise<Ended> {
  return new Promise((resolve, reject) => {
    // A group of its own, so that what ssh starts (ProxyCommand) ends with it.
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, windowsHide: true });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] = (output[name] + text).slice(-MAX_OUTPUT_CHARS);
      });
    const cut = setTimeout(() => {
      end(child.pid);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ code: undefined, ...output });
    }, limitMs);
    child.once('error', (error) => {
      clearTimeout(cut);
      reject(new ReportedError(`cannot run ${program}: ${messageOf(error)}`));
    });
    child.once('close', (code) => {
      clearTimeout(cut);
      resolve({ code: code ?? undefined, ...output });
    });
  });
}

function end(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}
