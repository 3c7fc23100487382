import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

import { checkDestination, sshArguments } from '../../../src/connected/relay/ssh-arguments.ts';
import { needSshd } from '../../rig/network/sshd.ts';
import { tempDir } from '../../rig/temp.ts';

const keptArguments = (command: readonly string[]): readonly string[] => {
  const all = sshArguments({ command, interactive: false, remoteCommand: 'true' });
  return all.slice(0, all.lastIndexOf('-T'));
};

it.each([
  ['ssh -p 22 -A4C -i key -J jump me@relay', 'ssh -p 22 -A4C -i key -J jump me@relay'],
  ['ssh -Nqt -vfn me@relay', 'ssh -t -v me@relay'],
  ['ssh -p -N -l -q me@relay', 'ssh -p -N -l -q me@relay'],
  ['ssh -S path -Epath -qE path -L 1:a:2 me@relay -q --', 'ssh -L 1:a:2 me@relay'],
  [
    'ssh -oLogLevel=QUIET -To loglevel=ERROR -o ServerAliveInterval=5 me@relay',
    'ssh -T -o ServerAliveInterval=5 me@relay',
  ],
  ['env A=b /usr/bin/ssh -N me@relay', 'env A=b /usr/bin/ssh me@relay'],
  ['sshpass -f file ssh -f me@relay', 'sshpass -f file ssh me@relay'],
  ['gcloud compute ssh relay --zone=z -q -- -N -p 22', 'gcloud compute ssh relay --zone=z -q -- -p 22'],
  ['env A=b gcloud compute ssh relay -q --', 'env A=b gcloud compute ssh relay -q --'],
  ['my-ssh -q -N', 'my-ssh -q -N'],
])('removes arguments of "%s" that conflict with the session', (command, expected) => {
  expect(keptArguments(command.split(' '))).toEqual(expected.split(' '));
});

it('removes a quoted setting that conflicts with the session', () => {
  expect(keptArguments(['ssh', '-o', ' "LogLevel" QUIET', '-o', '"Port" 22', 'relay'])).toEqual([
    'ssh',
    '-o',
    '"Port" 22',
    'relay',
  ]);
});

it("opens the tunnel if it has a port, and otherwise disables the user's forwards too", () => {
  const command = ['ssh', 'me@relay'];
  const tunnel = sshArguments({ command, interactive: true, localPort: 4096, remoteCommand: 'true' });
  expect(tunnel.slice(-3)).toEqual(['-R', '0:127.0.0.1:4096', 'true']);
  expect(tunnel).toContain('ClearAllForwardings=no');
  expect(tunnel).not.toContain('BatchMode=yes');
  const survey = sshArguments({ command, interactive: false, remoteCommand: 'true' });
  expect(survey).toContain('ClearAllForwardings=yes');
  expect(survey).toContain('BatchMode=yes');
});

describe('a real ssh', () => {
  /** The settings that ssh would use, by lower-case name. */
  async function settings(config: string, ...own: readonly string[]): Promise<Readonly<Record<string, string>>> {
    await using folder = tempDir('ssh-arguments');
    const path = join(folder.path, 'config');
    await writeFile(path, config);
    const command = ['ssh', '-G', '-F', path, ...own, 'relay'];
    const [program = '', ...args] = sshArguments({ command, interactive: false, localPort: 1, remoteCommand: 'true' });
    const { stdout } = await promisify(execFile)(program, args);
    return Object.fromEntries(stdout.split('\n').map((line) => [line.split(' ', 1)[0], line.replace(/^\S+ /, '')]));
  }

  it('uses our keepalive and connect timeout unless the command sets its own', async (context) => {
    needSshd(context);
    const config = 'ServerAliveInterval 0\nServerAliveCountMax 99\nConnectTimeout 600\n';
    expect(await settings(config)).toMatchObject({
      serveraliveinterval: '15',
      serveralivecountmax: '3',
      connecttimeout: '30',
    });
    const own = ['-o', 'ServerAliveInterval=5', '-oConnectTimeout 9', '-o', 'ServerAliveCountMax=4'];
    expect(await settings(config, ...own)).toMatchObject({
      serveraliveinterval: '5',
      serveralivecountmax: '4',
      connecttimeout: '9',
    });
  });

  it('shares no connection, and ignores unknown options', async (context) => {
    needSshd(context);
    const shared = await settings('ControlPath /tmp/%h\nControlMaster auto\nOptionOfAnotherVersion yes\n');
    expect(shared).not.toHaveProperty('controlpath');
  });
});

describe('the host', () => {
  const check = (command: string) => () => checkDestination(command.split(' '));

  it.each([
    'ssh relay',
    '/usr/bin/ssh -p 22 me@relay -v --',
    'ssh -tJjump -o ProxyCommand=none relay -l me',
    'env A=b ssh relay uptime',
    'tsh ssh --proxy p relay',
    'gcloud compute ssh relay',
  ])('is found in "%s"', (command) => {
    expect(check(command)).not.toThrow();
  });

  it.each([
    ['ssh', /names no host/],
    ['ssh -p 22 -i key --', /names no host/],
    ['ssh -l relay', /names no host/],
    ['ssh relay uptime -v', /must end with the host, .*; remove "uptime"$/],
    ['ssh -p 22 me@relay -- tmux new', /remove "tmux new"$/],
  ])('must be the last word of "%s"', (command, problem) => {
    expect(check(command)).toThrow(problem);
  });
});
