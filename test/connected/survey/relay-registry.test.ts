import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';

import { afterAll, afterEach, beforeEach, expect, it, onTestFinished, vi } from 'vitest';

import { runSurvey } from '../../../src/connected/survey/command.ts';
import { relayRegistry } from '../../../src/connected/survey/relay-registry.ts';
import type { Registry } from '../../../src/connected/survey/registry.ts';
import { installConnected, needSshd, startSshd, type Sshd } from '../../rig/network/sshd.ts';
import { until } from '../../rig/wait.ts';
import { openRemains, outputOf, type Remains } from '../cleanup/remains.ts';

const never = new AbortController().signal;

let remains: Remains;
/** All tests share it. */
let sshd: Sshd;

beforeEach(async (context) => {
  needSshd(context);
  sshd ??= await startSshd();
  await installConnected(sshd);
  remains = await openRemains();
});
afterEach(() => until('every session to end', async () => (await sshd.sessionProcesses()).length === 0));
afterAll(() => sshd?.close());

const explicitDir = (path: string) => ({ path, explicit: true });

function registry(options: Partial<Parameters<typeof relayRegistry>[0]> = {}): Registry {
  return relayRegistry({ sshCommand: sshd.command, registryDir: explicitDir(remains.registry), ...options });
}

/** A relay whose login runs `script` and not our program. */
const registryRunning = (script: string): Registry => registry({ sshCommand: ['sh', '-c', script, 'sh'] });

it('surveys 300 registrations, and removes on request', async () => {
  await Promise.all(
    Array.from({ length: 300 }, (_, index) => remains.register(`app-${index}`, { port: 20_000 + index })),
  );
  await remains.register('dead', { claim: 'dead' });
  const relay = registry();
  const { registrations, claims } = await relay.survey(never);
  expect(registrations).toHaveLength(301);
  const dead = registrations.find(({ name }) => name === 'dead');
  const [claim] = claims;
  expect(
    await relay.remove(
      [
        {
          kind: 'registration',
          name: 'dead',
          claim: claim?.line ?? '',
          version: dead?.version,
          port: dead?.registration.port,
        },
        { kind: 'password', id: 'none', age: 'any' },
      ],
      never,
    ),
  ).toEqual([{ removed: true }, { removed: true }]);
  expect(existsSync(join(remains.registry, 'dead.json'))).toBe(false);
});

it('ignores the output of a login script', async () => {
  await remains.register('app');
  const [ssh = '', ...args] = sshd.command;
  const noisy = ['sh', '-c', 'echo hello; echo "{}"; exec "$@"', 'sh', ssh, ...args];
  expect((await registry({ sshCommand: noisy }).survey(never)).registrations).toHaveLength(1);
});

it("reports the relay's own error", async () => {
  await writeFile(join(remains.path, 'file'), '');
  await expect(registry({ registryDir: explicitDir(join(remains.path, 'file')) }).survey(never)).rejects.toThrow(
    /is no directory/,
  );
  await expect(registry({ registryDir: explicitDir('registry') }).survey(never)).rejects.toThrow(
    /expected an absolute/,
  );
});

it('advises to install a missing program or node', async () => {
  const advice = /finds no opencode-connected there.*until \$RELAY_SSH_CMD opencode-connected survey prints a line/;
  await installConnected(sshd, '#!/nowhere/node\n');
  await expect(registry().survey(never)).rejects.toThrow(advice);
  await installConnected(sshd, '#!/bin/sh\necho "/usr/bin/env: \'node\': No such file or directory" >&2\nexit 127\n');
  await expect(registry().survey(never)).rejects.toThrow(advice);
  await expect(registryRunning('exec opencode-connected-is-not-here').survey(never)).rejects.toThrow(advice);
});

it.each([
  [
    'older than the survey',
    `echo 'opencode-connected: unknown subcommand "survey": expected none (start opencode) or one of start' >&2; exit 2`,
  ],
  ['newer than this one', 'cat > /dev/null; echo \'{"survey":{"format":2}}\''],
])('reports that the program is %s', async (_, script) => {
  await expect(registryRunning(script).survey(never)).rejects.toThrow(
    /of another version.*upgrade the older of the two/,
  );
});

it("quotes the relay's error, even after an unfinished line of a login script", async () => {
  const script = `printf '\\033]0;{relay}\\007'; echo '{"error":"it is full; run: evil"}'; exit 1`;
  await expect(registryRunning(script).survey(never)).rejects.toThrow('the relay says "it is full; run: evil"');
});

it('advises to log in once by hand if the host key is unknown', async () => {
  const [ssh = '', ...args] = sshd.command;
  const unknown = args.map((word) => (word.startsWith('UserKnownHostsFile=') ? 'UserKnownHostsFile=/dev/null' : word));
  await expect(registry({ sshCommand: [ssh, ...unknown] }).survey(never)).rejects.toThrow(
    /Host key verification failed.*ssh cannot ask you here: load the key into ssh-agent, or log in once by hand/,
  );
});

it('starts no askpass program', async () => {
  const marker = join(remains.path, 'asked');
  const askpass = join(remains.path, 'askpass');
  await writeFile(askpass, `#!/bin/sh\n: >'${marker}'\necho yes\n`, { mode: 0o755 });
  vi.stubEnv('SSH_ASKPASS', askpass);
  vi.stubEnv('SSH_ASKPASS_REQUIRE', 'force');
  const args = sshd.command.map((word) =>
    word
      .replace(/^UserKnownHostsFile=.*/, 'UserKnownHostsFile=/dev/null')
      .replace('StrictHostKeyChecking=yes', 'StrictHostKeyChecking=ask'),
  );
  await expect(registry({ sshCommand: args }).survey(never)).rejects.toThrow(/Host key verification failed/);
  // The ssh to a jump host gets none of our options.
  const proxyCommand = `ProxyCommand=${args.join(' ')} -W %h:%p`;
  const [ssh = '', ...rest] = sshd.command;
  await expect(registry({ sshCommand: [ssh, '-o', proxyCommand, ...rest] }).survey(never)).rejects.toThrow(
    /verification failed/,
  );
  vi.unstubAllEnvs();
  expect(existsSync(marker)).toBe(false);
});

it('repeats the output of a forced command', async () => {
  await expect(registryRunning('echo for git only; exit 3').survey(never)).rejects.toThrow(
    'the relay printed "for git only" instead of running our program: (ssh ended with status 3); see command=',
  );
});

it('reports an unreachable relay', async () => {
  await sshd.stop();
  onTestFinished(() => sshd.start());
  await expect(registry().survey(never)).rejects.toThrow(/Connection refused" \(ssh ended with status 255\)/);
  await expect(registry({ sshCommand: ['/nonexistent/ssh'] }).survey(never)).rejects.toThrow(
    /there is no such program; install it/,
  );
});

it('gives up at the time limit, and when it is aborted', async () => {
  const silent = { sshCommand: ['sh', '-c', 'exec sleep 600', 'sh'] };
  await expect(registry({ ...silent, limitMs: 100 }).survey(never)).rejects.toThrow('there was no answer within 0.1 s');
  const ending = new AbortController();
  const survey = registry(silent).survey(ending.signal);
  ending.abort();
  await expect(survey).rejects.toThrow('it was interrupted');
});

it('cuts off endless output', async () => {
  await expect(registryRunning('exec yes').survey(never)).rejects.toThrow('instead of running our program');
});

it('refuses an endless request', async () => {
  const flood = Readable.from(
    (function* () {
      for (;;) yield Buffer.alloc(1024 * 1024, 'x');
    })(),
  );
  const settings = { registryDir: explicitDir(remains.registry), stateDir: remains.stateDir };
  const answer = await outputOf((io) => runSurvey({ settings, request: flood, ...io }));
  expect(answer).toEqual({ code: 1, text: expect.stringContaining('has more than 16777216 bytes') });
});
