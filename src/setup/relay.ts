import { messageOf } from '../base/errors.ts';
import { quoted, shellWord } from '../base/plain-text.ts';
import { ReportedError } from '../base/program.ts';
import { type BriefRun, runBriefly } from '../connected/run-briefly.ts';
import { personsEnvironment } from '../connected/start/child-environment.ts';
import type { ServerCommand, Words } from './clients.ts';

/** A connection takes a second or two, and at most 10 s to fail; an interactive shell with a framework takes longer. */
const SSH_LIMIT_MS = 20_000;
/** Answers are a few lines. A login script may print megabytes. */
const MAX_OUTPUT_CHARS = 64 * 1024;
const MAX_QUOTED_CHARS = 300;

/** In a client, nobody can answer ssh's questions. A lost connection ends after 45 s. */
const OPTIONS = ['-o', 'BatchMode=yes', '-o', 'ConnectTimeout=10', '-o', 'ServerAliveInterval=15'];

/** A destination for ssh, not an option. */
export const DESTINATION = /^[^\s-]\S*$/;

/**
 * The command that runs the server by ssh. Tries it without a terminal, as a client would, in up to three connections of `limitMs`
 * each.
 * @throws {ReportedError} ssh fails, or does not find opencode-mcp there; says what to do
 */
export async function remoteServerCommand(
  ssh: string,
  destination: string,
  limitMs = SSH_LIMIT_MS,
): Promise<ServerCommand> {
  const words = (remote: string): Words => [ssh, ...OPTIONS, destination, remote];
  const runThere = (remote: string): Promise<BriefRun> => run(words(remote), limitMs);

  const direct = await runThere('opencode-mcp --version');
  if (isVersion(direct)) return { words: words('opencode-mcp'), warnings: [] };
  if (direct.code === undefined || direct.code === 255)
    throw new ReportedError(unreachable(destination, direct, limitMs));
  if (direct.code === 0) throw new ReportedError(noisy(destination, direct));

  // Version managers set the PATH for interactive shells only.
  const found = await runThere(`"$SHELL" -ilc 'command -v node; command -v opencode-mcp'`);
  const node = lastLine(found, /^\/.*\/node$/);
  const program = lastLine(found, /^\/.*\/opencode-mcp$/);
  if (program === undefined || node === undefined) {
    const reason = direct.errors.trim() === '' ? '' : ` It said ${quoted(direct.errors, MAX_QUOTED_CHARS)}.`;
    throw new ReportedError(
      `opencode-mcp was not found on ${destination}, neither by ssh without a terminal nor by a login shell.${reason} ` +
        `Install it there, make \`ssh ${destination} opencode-mcp --version\` print its version, and run this again.`,
    );
  }
  const absolute = `${shellWord(node)} ${shellWord(program)}`;
  const tried = await runThere(`${absolute} --version`);
  if (!isVersion(tried))
    throw new ReportedError(tried.code === 0 ? noisy(destination, tried) : unreachable(destination, tried, limitMs));
  return {
    words: words(absolute),
    warnings: [
      `on ${destination} opencode-mcp is not on the PATH of a shell without a terminal, so its path there is used: ${program}. ` +
        `When it moves, run init again; or link it and node into a folder of that PATH (ssh ${destination} 'echo $PATH'), and run init again`,
    ],
  };
}

function isVersion({ code, output }: BriefRun): boolean {
  return code === 0 && /^\d+\.\d+\.\d+\S*\n$/.test(output);
}

function unreachable(destination: string, { code, errors }: BriefRun, limitMs: number): string {
  const words = errors.trim() === '' ? 'nothing' : quoted(errors, MAX_QUOTED_CHARS);
  const how = code === undefined ? `did not answer within ${limitMs / 1000} s` : `ended with code ${code}`;
  const hint = /Permission denied/.test(errors)
    ? `a client cannot type a password: run ssh-copy-id ${destination}, and keep the key in ssh-agent`
    : /Host key verification failed/.test(errors)
      ? `run ssh ${destination} once and confirm its key`
      : `make \`ssh ${destination} true\` work without a question`;
  return `ssh to ${destination} ${how} and said ${words}; ${hint}, then run this again`;
}

function noisy(destination: string, { output }: BriefRun): string {
  return (
    `\`ssh ${destination} opencode-mcp --version\` printed ${quoted(output, MAX_QUOTED_CHARS)} instead of a version: a start-up ` +
    `file of the shell there prints text without a terminal too, which breaks the protocol. Have it print only in an ` +
    `interactive shell: case $- in *i*) … ;; esac`
  );
}

function lastLine({ output }: BriefRun, pattern: RegExp): string | undefined {
  return output
    .split('\n')
    .map((line) => line.trim())
    .findLast((line) => pattern.test(line));
}

async function run([program, ...args]: Words, limitMs: number): Promise<BriefRun> {
  // `signalsAll` also ends what ssh starts, such as a ProxyCommand.
  const limits = { limitMs, signalsAll: true, maxOutputChars: MAX_OUTPUT_CHARS, mayPrintMore: true };
  const ended = await runBriefly(program, args, personsEnvironment(process.env), limits);
  if (ended.startError !== undefined)
    throw new ReportedError(`cannot run ${program}: ${messageOf(ended.startError)}; install OpenSSH`);
  return ended;
}
