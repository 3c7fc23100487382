import { spawnSync } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import process from 'node:process';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { expect, onTestFinished, test, type TestContext } from 'vitest';

import { remoteServerCommand } from '../../src/setup/relay.ts';
import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { describeProcess, needSshd, startSshd } from '../rig/network/sshd.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

/** A relay, with an `ssh` that uses the rig's keys in place of the person's configuration. */
async function relay(context: TestContext, config: readonly string[] = []) {
  needSshd(context);
  const sshd = await startSshd({ config });
  const temp = tempDir('opencode-mcp-relay');
  onTestFinished(async () => {
    await sshd.close();
    await temp.close();
  });
  const ssh = join(temp.path, 'ssh');
  const own = sshd.command.slice(1, -1).map((word) => `'${word}'`);
  // It may be the first ssh on the caller's PATH.
  await writeFile(ssh, `#!/bin/sh\nPATH='${process.env['PATH']}'\nexec ssh ${own.join(' ')} "$@"\n`);
  await chmod(ssh, 0o755);
  /** Writes a program into the home of the sessions. */
  const write = async (name: string, text: string): Promise<string> => {
    const path = join(sshd.home, name);
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, text);
    await chmod(path, 0o755);
    return path;
  };
  return { sshd, ssh, destination: sshd.command.at(-1) ?? '', write };
}

/** The built server as installed: a program of its name that needs `node` on PATH. */
const PROGRAM = `#!/bin/sh\nexec node ${SERVER_SCRIPT} --mdns-interfaces none --transport local-relay --registry-dir "$HOME" "$@"\n`;

interface Written {
  readonly mcpServers: { readonly opencode: { readonly command: string; readonly args: readonly string[] } };
}

/** Does what a client does: runs the command and lists the tools. */
async function tools([command, ...args]: readonly string[]): Promise<readonly string[]> {
  const client = new Client({ name: 'elsewhere', version: '1' });
  await client.connect(new StdioClientTransport({ command: command ?? '', args, stderr: 'ignore' }));
  const { tools } = await client.listTools();
  await client.close();
  return tools.map(({ name }) => name);
}

test('a program on the PATH of a shell without a terminal answers through ssh', async (context) => {
  const bin = tempDir('opencode-mcp-bin');
  onTestFinished(() => bin.close());
  const path = `${bin.path}:/usr/local/bin:/usr/bin:/bin`;
  const { ssh, destination, write } = await relay(context);
  // As on Debian: for a command of ssh, bash reads it up to the test for a terminal.
  await write('.bashrc', `export PATH=${path}\ncase $- in *i*) ;; *) return;; esac\necho hello\n`);
  await writeFile(join(bin.path, 'opencode-mcp'), PROGRAM);
  await chmod(join(bin.path, 'opencode-mcp'), 0o755);
  const { words, warnings } = await remoteServerCommand(ssh, destination);
  expect(words.slice(-2)).toEqual([destination, 'opencode-mcp']);
  expect(words).toContain('BatchMode=yes');
  expect(warnings).toEqual([]);
  expect(await tools(words)).toContain('send');

  // The same from the command line: into the client's file, with ssh's absolute path.
  const args = [SERVER_SCRIPT, 'init', '--relay', destination, '--client', 'cursor', '--yes'];
  const env = { PATH: dirname(ssh), HOME: bin.path, ...NO_MULTICAST };
  const { status } = spawnSync(process.execPath, args, { env });
  expect(status).toBe(0);
  const { mcpServers } = JSON.parse(await readFile(join(bin.path, '.cursor/mcp.json'), 'utf8')) as Written;
  expect([mcpServers.opencode.command, ...mcpServers.opencode.args]).toEqual(words);
});

test('a program on the PATH of interactive shells only gets its absolute path and a warning', async (context) => {
  const { ssh, destination, write } = await relay(context);
  const program = await write("version's bin/opencode-mcp", PROGRAM.replace('exec node', `exec ${process.execPath}`));
  const node = await write(
    "version's bin/node",
    `#!/bin/sh\n[ "$1" = "${program}" ] && shift && exec "${program}" "$@"\n`,
  );
  await write('.bashrc', `case $- in *i*) ;; *) return;; esac\necho welcome\nPATH="$HOME/version's bin:$PATH"\n`);
  await write('.bash_profile', '. ~/.bashrc\n');
  const { words, warnings } = await remoteServerCommand(ssh, destination);
  const shell = (path: string): string => `'${path.replaceAll("'", "'\\''")}'`;
  expect(words.at(-1)).toBe(`${shell(node)} ${shell(program)}`);
  expect(warnings).toEqual([expect.stringContaining(`so its path there is used: ${program}.`)]);
  expect(await tools(words)).toContain('send');
});

test('a login script that prints a megabyte hides neither the paths nor the error', async () => {
  const temp = tempDir('opencode-mcp-noisy');
  onTestFinished(() => temp.close());
  const ssh = join(temp.path, 'ssh');
  const script = (found: string): string => `#!/bin/sh
head -c 1000000 /dev/zero | tr '\\0' x
for word in "$@"; do last=$word; done
case $last in
  "opencode-mcp --version") echo; ${found} ;;
  *-ilc*) printf '\\n/opt/bin/node\\n/opt/bin/opencode-mcp\\n' ;;
esac
`;
  await writeFile(ssh, script('exit 127'), { mode: 0o755 });
  await expect(remoteServerCommand(ssh, 'you@relay')).rejects.toThrow('instead of a version');
  await writeFile(ssh, script('echo 1.2.3'));
  await expect(remoteServerCommand(ssh, 'you@relay')).rejects.toThrow('instead of a version');
});

test('the error for a missing program names both attempts', async (context) => {
  const { ssh, destination } = await relay(context);
  await expect(remoteServerCommand(ssh, destination)).rejects.toThrow(
    `opencode-mcp was not found on ${destination}, neither by ssh without a terminal nor by a login shell.`,
  );
});

test('a shell that prints something in every session causes an error', async (context) => {
  const { ssh, destination, write } = await relay(context);
  await write('.bashrc', 'echo "fortune of the day"\nopencode-mcp() { echo 1.2.3; }\n');
  await expect(remoteServerCommand(ssh, destination)).rejects.toThrow(
    /printed "fortune of the day 1\.2\.3".*interactive shell: case/s,
  );
});

test('the errors for a refused key, an unknown host and an unreachable relay each give advice', async (context) => {
  const { sshd, ssh, destination } = await relay(context, ['AuthorizedKeysFile none']);
  await expect(remoteServerCommand(ssh, destination)).rejects.toThrow(/Permission denied.*ssh-copy-id/s);
  const script = await readFile(ssh, 'utf8');
  await writeFile(ssh, script.replace(/UserKnownHostsFile=[^']+/, 'UserKnownHostsFile=/dev/null'));
  await expect(remoteServerCommand(ssh, destination)).rejects.toThrow(/Host key verification failed.*confirm its key/s);
  await sshd.stop();
  await expect(remoteServerCommand(ssh, destination)).rejects.toThrow(/Connection refused.*`ssh \S+ true` work/s);
  await expect(remoteServerCommand('/nowhere/ssh', destination)).rejects.toThrow('cannot run /nowhere/ssh');
});

test('an ssh that hangs is ended together with its child processes', async () => {
  const temp = tempDir('opencode-mcp-relay');
  onTestFinished(() => temp.close());
  const ssh = join(temp.path, 'ssh');
  await writeFile(ssh, `#!/bin/sh\nsleep 1000 &\necho $! > ${temp.path}/pid\nwait\n`);
  await chmod(ssh, 0o755);
  // Time for a busy machine to start two processes.
  await expect(remoteServerCommand(ssh, 'you@relay', 3_000)).rejects.toThrow(
    'ssh to you@relay did not answer within 3 s',
  );
  const pid = Number(await readFile(join(temp.path, 'pid'), 'utf8'));
  await until('the child process to end', async () => (await describeProcess(pid)) === undefined);
});
