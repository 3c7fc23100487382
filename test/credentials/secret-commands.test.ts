import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { createSecretCommands } from '../../src/credentials/secret-commands.ts';
import { tempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';
import { ManualClock } from '../fleet/manual-clock.ts';

const never = new AbortController().signal;
const RUN_LIMIT_MS = 10_000;
const KEPT_MS = 300_000;

function shell(script: string, ...args: string[]): [string, ...string[]] {
  return ['/bin/sh', '-c', script, 'sh', ...args];
}

/** Prints how often it has run, and fails while a file `<path>.bad` exists. */
function countingCommand(path: string): [string, ...string[]] {
  return shell('echo x >> "$1"; test ! -e "$1.bad" || exit 3; grep -c x "$1"', path);
}

function errorOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    (value) => `no error but ${JSON.stringify(value)}`,
    (error: unknown) => {
      // No cause or property may contain the command's output or arguments.
      expect(inspect(error, { depth: 10 })).not.toContain('hunter2');
      return error instanceof Error ? error.message : String(error);
    },
  );
}

describe('a password command', () => {
  const commands = createSecretCommands({ clock: systemClock, signal: never });

  it.each([
    ['returns its output', ['printf', 'pass word\n'], 'pass word\n'],
    [
      'gets its arguments unchanged, without a shell',
      ['printf', '%s|', '$HOME', '`id`', 'a b; exit 1'],
      '$HOME|`id`|a b; exit 1|',
    ],
    ['has an empty stdin', shell('cat; echo done'), 'done\n'],
    ['may write much to stderr', shell('yes complaint | head -c 500000 >&2; echo done'), 'done\n'],
    ['may print 4096 bytes', shell('yes | tr -d "\\n" | head -c 4096'), 'y'.repeat(4096)],
  ] as const)('%s', async (_, argv, output) => {
    expect(await commands.run([...argv], never)).toBe(output);
  });

  it.each([
    ['a code', 'exit 7', 'ended with code 7; run'],
    ['a code and a complaint', 'printf "\\n  no vault\\nsecond line" >&2; exit 1', 'ended with code 1: no vault; run'],
    [
      'a complaint for terminals',
      'printf "\\033[31mbad\\033[0m \\342\\200\\256news\\a\\rover" >&2; exit 1',
      'ended with code 1: bad news; run',
    ],
    ['a long complaint', 'yes | tr -d "\\n" | head -c 9000 >&2; exit 1', `ended with code 1: ${'y'.repeat(199)}…; run`],
    ['a signal', 'kill -TERM $$', 'ended with SIGTERM; run'],
  ])('that fails is reported with %s', async (_, script, expected) => {
    expect(await errorOf(commands.run(shell(`echo hunter2; ${script}`, 'hunter2'), never))).toBe(
      `password command /bin/sh ${expected} it in a shell to see why`,
    );
  });

  it.each<[name: string, argv: [string, ...string[]], expected: string]>([
    [
      'does not exist',
      ['/no/such/program', 'hunter2'],
      'cannot run the password command /no/such/program: no such program; give its full path or put its folder on PATH',
    ],
    ['cannot be run', ['/', 'hunter2'], 'cannot run the password command /: EACCES'],
    ['gets a NUL', ['echo', 'hunter2\0'], 'cannot run the password command echo: ERR_INVALID_ARG_VALUE'],
    [
      'prints more than 4096 bytes',
      shell('exec yes hunter2'),
      'password command /bin/sh printed more than 4096 bytes; let it print only the password',
    ],
  ])('that %s is reported without its arguments and output', async (_, argv, expected) => {
    expect(await errorOf(commands.run(argv, never))).toBe(expected);
  });
});

describe('the output of a command', () => {
  it('is kept for five minutes, even if the wall clock is set back', async () => {
    await using folder = tempDir();
    const clock = new ManualClock();
    const commands = createSecretCommands({ clock, signal: never });
    const argv = countingCommand(join(folder.path, 'runs'));
    expect(await commands.run(argv, never)).toBe('1\n');
    clock.step(-2 * KEPT_MS);
    await clock.advance(KEPT_MS - 1);
    expect(await commands.run(argv, never)).toBe('1\n');
    await clock.advance(1);
    expect(await commands.run(argv, never)).toBe('2\n');
  });

  it('is shared by concurrent calls with the same arguments only', async () => {
    await using folder = tempDir();
    const commands = createSecretCommands({ clock: new ManualClock(), signal: never });
    const argv = countingCommand(join(folder.path, 'runs'));
    expect(
      await Promise.all([
        commands.run(argv, never),
        commands.run([...argv], never),
        commands.run(['printf', '%s.', 'a b'], never),
        commands.run(['printf', '%s.', 'a', 'b'], never),
      ]),
    ).toEqual(['1\n', '1\n', 'a b.', 'a.b.']);
  });

  it('is shared but not kept if the command failed', async () => {
    await using folder = tempDir();
    const commands = createSecretCommands({ clock: new ManualClock(), signal: never });
    const path = join(folder.path, 'runs');
    writeFileSync(`${path}.bad`, '');
    const failed = await Promise.all([
      errorOf(commands.run(countingCommand(path), never)),
      errorOf(commands.run(countingCommand(path), never)),
    ]);
    expect(failed).toEqual(Array(2).fill('password command /bin/sh ended with code 3; run it in a shell to see why'));
    expect(readFileSync(path, 'utf8')).toBe('x\n');
    rmSync(`${path}.bad`);
    expect(await commands.run(countingCommand(path), never)).toBe('2\n');
  });
});

/** A command whose child connects to this process and hangs; the connection closes when the child ends. */
async function hangingCommand(): Promise<{
  argv: [string, ...string[]];
  grandchild: Promise<Socket>;
  [Symbol.asyncDispose](): Promise<void>;
}> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const script = `require('net').connect(${JSON.stringify(address)})`;
  const grandchild = new Promise<Socket>((resolve) =>
    server.once('connection', (socket) => resolve(socket.on('error', () => {}).resume())),
  );
  return {
    argv: shell('"$1" -e "$2" & wait; echo late', process.execPath, script),
    grandchild,
    async [Symbol.asyncDispose]() {
      server.close();
      (await grandchild).destroy();
    },
  };
}

describe('a command that hangs', () => {
  it.each([
    ['after ten seconds', 'did not finish within 10 s; it must not wait for input', { isShutdown: false }],
    ['at shutdown', 'was stopped: the program is shutting down', { isShutdown: true }],
  ])('is killed with its children %s', async (_, reason, { isShutdown }) => {
    await using hanging = await hangingCommand();
    const clock = new ManualClock();
    const shutdown = new AbortController();
    const run = errorOf(createSecretCommands({ clock, signal: shutdown.signal }).run(hanging.argv, never));
    const closed = once(await within(hanging.grandchild, 'the grandchild to connect'), 'close');
    if (isShutdown) shutdown.abort();
    else await clock.advance(RUN_LIMIT_MS);
    expect(await within(run, 'the run to end')).toBe(`password command /bin/sh ${reason}`);
    await within(closed, 'the grandchild to end');
  });

  it('is not started after shutdown', async () => {
    await using folder = tempDir();
    const path = join(folder.path, 'runs');
    const commands = createSecretCommands({ clock: new ManualClock(), signal: AbortSignal.abort() });
    expect(await errorOf(commands.run(countingCommand(path), never))).toContain('aborted');
    expect(existsSync(path)).toBe(false);
  });
});

describe('a caller that aborts', () => {
  it('is rejected at once, and the command keeps running for the next caller', async () => {
    await using folder = tempDir();
    const commands = createSecretCommands({ clock: new ManualClock(), signal: never });
    const argv = shell('until test -e "$1"; do sleep 0.02; done; echo late', join(folder.path, 'go'));
    const caller = new AbortController();
    const first = commands.run(argv, caller.signal);
    caller.abort(new Error('probe deadline'));
    expect(await errorOf(first)).toBe('probe deadline');
    const second = commands.run(argv, never);
    writeFileSync(join(folder.path, 'go'), '');
    expect(await within(second, 'the same run')).toBe('late\n');
  });

  it('starts no command if it aborts before the call', async () => {
    const shutdown = new AbortController();
    const commands = createSecretCommands({ clock: new ManualClock(), signal: shutdown.signal });
    const children = (): number => process.getActiveResourcesInfo().filter((name) => name === 'ProcessWrap').length;
    const before = children();
    const work = errorOf(commands.run(['sleep', '600'], AbortSignal.abort(new Error('too late'))));
    expect(children()).toBe(before);
    expect(await work).toBe('too late');
    shutdown.abort();
  });
});
