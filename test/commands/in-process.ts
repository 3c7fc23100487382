import { EventEmitter } from 'node:events';
import { Readable } from 'node:stream';

import { onTestFinished, vi } from 'vitest';

import { type Output, runProgram } from '../../src/base/program.ts';
import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';

/** Runs a command as the program does, but in this process and without a terminal. */
export async function runInProcess(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  command: (process: NodeJS.Process, output: Output) => Promise<void>,
) {
  vi.stubEnv('HOME', env['HOME']);
  onTestFinished(() => void vi.unstubAllEnvs());
  const output = { stdout: '', stderr: '' };
  const writer = (name: keyof typeof output) =>
    Object.assign(new EventEmitter(), { writableLength: 0, write: (text: string) => (output[name] += text) });
  const fake = Object.assign(new EventEmitter(), {
    stdin: Readable.from([]),
    stdout: writer('stdout'),
    stderr: writer('stderr'),
    env: { ...NO_MULTICAST, ...env },
    platform: process.platform,
    execPath: process.execPath,
    argv: [process.execPath, SERVER_SCRIPT, ...args],
    cwd: () => process.cwd(),
    exit: () => {},
    exitCode: 0,
  });
  const fakeProcess = fake as unknown as NodeJS.Process;
  await runProgram('opencode-mcp', fakeProcess, (programOutput) => command(fakeProcess, programOutput));
  return { code: fake.exitCode, ...output };
}
