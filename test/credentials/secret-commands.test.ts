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
function counted(path: string): [string, ...string[]] {
  return shell('echo x >> "$1"; test ! -e "$1.bad" || exit 3; grep -c x "$1"', path);
}

function errorOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    (value) => `no error but ${JSON.stringify(value)}`,
    (error: unknown) => {
      // Contains neither output nor arguments of the command, in no cause or property.
      expect(inspect(error, { depth: 10 })).not.toContain('hunter2');
      return error instanceof Error ? error.message : String(error);
    },
  );
}

describe('a password command', () => {
  const commands = createSecretCommands({ clock: systemClock, signal: never });

  it('returns its output', async () => {
    expect(await commands.run(['printf', 'pass word\n'], never)).toBe('pass word\n');
  });

  it('gets its arguments unchanged, without a shell', async () => {
    expect(await commands.run(['printf', '%s|', '$HOME', '`id`', 'a b; exit 1'], never)).toBe(
      '$HOME|`id`|a b; exit 1|',
    );
  });

  it('has an empty stdin', async () => {
    expect(await commands.run(shell('cat; echo done'), never)).toBe('done\n');
  });

  it('may write much to stderr and still succeed', async () => {
    expect(await commands.run(shell('yes complaint | head -c 500000 >&2; echo done'), never)).toBe('done\n');
  });

  it.each([
    { name: 'a code', script: 'exit 7', expected: 'ended with code 7; run' },
    {
      name: 'a code and a complaint',
      script: 'printf "\\n  no vault\\nsecond line" >&2; exit 1',
      expected: 'ended with code 1: no vault; run',
    },
    {
      name: 'a complaint for terminals',
      script: 'printf "\\033[31mbad\\033[0m \\342\\200\\256news\\a\\rover" >&2; exit 1',
      expected: 'ended with code 1: bad news; run',
    },
    {
      name: 'a long complaint',
      script: 'yes | tr -d "\\n" | head -c 9000 >&2; exit 1',
      expected: `ended with code 1: ${'y'.repeat(199)}…; run`,
    },
    { name: 'a signal', script: 'kill -TERM $$', expected: 'ended with SIGTERM; run' },
  ])('that fails is reported with $name', async ({ script, expected }) => {
    expect(await errorOf(commands.run(shell(`echo hunter2; ${script}`, 'hunter2'), never))).toBe(
      `password command /bin/sh ${expected} it in a shell to see why`,
    );
  });

  it('that does not exist is reported with advice', async () => {
    expect(await errorOf(commands.run(['/no/such/program', 'hunter2'], never))).toBe(
      'cannot run the password command /no/such/program: no such program; give its full path or put its folder on PATH',
    );
  });

  it('that cannot be run is reported without its arguments', async () => {
    expect(await errorOf(commands.run(['/', 'hunter2'], never))).toBe('cannot run the password command /: EACCES');
    expect(await errorOf(commands.run(['echo', 'hunter2\0'], never))).toBe(
      'cannot run the password command echo: ERR_INVALID_ARG_VALUE',
    );
  });

  it('may print 4096 bytes', async () => {
    expect(await commands.run(shell('yes | tr -d "\\n" | head -c 4096'), never)).toHaveLength(4096);
  });

  it('that prints more is stopped', async () => {
    expect(await errorOf(commands.run(shell('exec yes hunter2'), never))).toBe(
      'password command /bin/sh printed more than 4096 bytes; let it print only the password',
    );
  });
});

describe('the output of a command', () => {
  it('is kept for five minutes, even if the wall clock is set back', async () => {
    await using folder = tempDir();
    const clock = new ManualClock();
    const commands = createSecretCommands({ clock, signal: never });
    const argv = counted(join(folder.path, 'runs'));
    expect(await commands.run(argv, never)).toBe('1\n');
    clock.step(-2 * KEPT_MS);
    await clock.advance(KEPT_MS - 1);
    expect(await commands.run(argv, never)).toBe('1\n');
    await clock.advance(1);
    expect(await commands.run(argv, never)).toBe('2\n');
  });

  it('is shared by concurrent calls', async () => {
    await using folder = tempDir();
    const commands = createSecretCommands({ clock: new ManualClock(), signal: never });
    const argv = counted(join(folder.path, 'runs'));
    expect(
      await Promise.all([commands.run(argv, never), commands.run([...argv], never), commands.run(argv, never)]),
    ).toEqual(['1\n', '1\n', '1\n']);
  });

  it('differs for other arguments with the same text', async () => {
    const commands = createSecretCommands({ clock: new ManualClock(), signal: never });
    const printed = await Promise.all([
      commands.run(['printf', '%s.', 'a b'], never),
      commands.run(['printf', '%s.', 'a', 'b'], never),
    ]);
    expect(printed).toEqual(['a b.', 'a.b.']);
  });

  it('is shared but not kept if the command failed', async () => {
    await using folder = tempDir();
    const commands = createSecretCommands({ clock: new ManualClock(), signal: never });
    const path = join(folder.path, 'runs');
    writeFileSync(`${path}.bad`, '');
    const failed = await Promise.all([
      errorOf(commands.run(counted(path), never)),
      errorOf(commands.run(counted(path), never)),
    ]);
    expect(failed).toEqual(Array(2).fill('password command /bin/sh ended with code 3; run it in a shell to see why'));
    expect(readFileSync(path, 'utf8')).toBe('x\n');
    rmSync(`${path}.bad`);
    expect(await commands.run(counted(path), never)).toBe('2\n');
  });
});

/** A command whose child connects to us and then hangs: the connection lives as long as that child. */
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
  it('is killed with its children after ten seconds', async () => {
    await using hanging = await hangingCommand();
    const clock = new ManualClock();
    const run = errorOf(createSecretCommands({ clock, signal: never }).run(hanging.argv, never));
    const closed = once(await within(hanging.grandchild, 'the grandchild to connect'), 'close');
    await clock.advance(RUN_LIMIT_MS);
    expect(await within(run, 'the run to end')).toBe(
      'password command /bin/sh did not finish within 10 s; it must not wait for input',
    );
    await within(closed, 'the grandchild to end');
  });

  it('is killed with its children at shutdown', async () => {
    await using hanging = await hangingCommand();
    const shutdown = new AbortController();
    const run = errorOf(
      createSecretCommands({ clock: new ManualClock(), signal: shutdown.signal }).run(hanging.argv, never),
    );
    const closed = once(await within(hanging.grandchild, 'the grandchild to connect'), 'close');
    shutdown.abort();
    expect(await within(run, 'the run to end')).toBe(
      'password command /bin/sh was stopped: the program is shutting down',
    );
    await within(closed, 'the grandchild to end');
  });

  it('is not started after shutdown', async () => {
    await using folder = tempDir();
    const path = join(folder.path, 'runs');
    const commands = createSecretCommands({ clock: new ManualClock(), signal: AbortSignal.abort() });
    expect(await errorOf(commands.run(counted(path), never))).toContain('aborted');
    expect(existsSync(path)).toBe(false);
  });
});

describe('a caller that aborts', () => {
  it('rejects at once, and the run continues for the next caller', async () => {
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

  it('before the call starts no command', async () => {
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
