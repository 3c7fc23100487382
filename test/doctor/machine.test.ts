import { chmod, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { tailnetChecks } from '../../src/doctor/tailnet.ts';
import { asUser, needRoot } from '../discovery/as-root.ts';
import { needNamespaces } from '../rig/network/lan.ts';
import { ipIn, NamespaceSet } from '../rig/network/namespaces.ts';
import { endProcessesIn } from '../rig/processes.ts';
import { STRANGER_UID } from '../rig/stranger.ts';
import { until } from '../rig/wait.ts';
import { type DoctorStage, lineOf, openDoctorStage, TAILNET_SELF, todoThat } from './stage.ts';

const INSTALL = fileURLToPath(new URL('../../scripts/install-node.sh', import.meta.url));

let stage: DoctorStage;
beforeAll(async () => {
  stage = await openDoctorStage();
});
afterAll(() => stage[Symbol.asyncDispose]());

/** A systemctl that starts the unit's program as systemd does, unless there is a file `broken`. */
const SYSTEMCTL = `#!/bin/sh
case "$*" in *restart*) ;; *) exit 0 ;; esac
[ ! -e "$HOME/broken" ] || exit 0
eval "exec $(sed -n 's/^ExecStart=//p' "$HOME/.config/systemd/user/opencode-mcp-node.service")" </dev/null >/dev/null 2>&1 &
`;

test('the doctor advises to restart a node service that is installed but does not run', async () => {
  onTestFinished(() => endProcessesIn(stage.env['TMPDIR'] ?? '/nowhere'));
  await writeFile(join(stage.bin, 'systemctl'), SYSTEMCTL, { mode: 0o755 });
  await writeFile(join(stage.bin, 'loginctl'), '#!/bin/sh\n', { mode: 0o755 });
  const notInstalled = await stage.doctor();
  expect(lineOf(notInstalled.report, 'node service', /not installed/)).toMatchObject({
    verdict: '-',
    text: expect.stringContaining(INSTALL),
  });
  expect(notInstalled.code).toBe(0);

  await stage.put('broken', '');
  expect(await stage.type(`sh ${INSTALL}`)).toMatchObject({ code: 0 });
  const before = await stage.doctor();
  expect(before.code).toBe(1);
  expect(lineOf(before.report, 'node service', /does not answer at 127\.0\.0\.2:\d+/)?.verdict).toBe('broken');
  const { command = '' } = todoThat(/systemctl --user restart opencode-mcp-node$/, before.report);

  expect(await stage.type(`rm "$HOME/broken"; ${command}`)).toMatchObject({ code: 0 });
  await until('the node service to listen', () =>
    fetch(`http://${TAILNET_SELF}:${stage.nodePort}`).then(
      () => true,
      () => false,
    ),
  );
  const after = await stage.doctor();
  expect(after.report.todo).toEqual([]);
  expect(lineOf(after.report, 'node service', /serves this user's instances at 127\.0\.0\.2/)?.verdict).toBe('ok');
});

test('the doctor reports a LocalAPI that this user may not open', async (context) => {
  needRoot(context);
  const { tailscaled, nodePort, home } = stage;
  const { socketPath } = tailscaled;
  await chmod(dirname(socketPath), 0o755);
  await chmod(socketPath, 0o600);
  const check = (): ReturnType<typeof tailnetChecks> =>
    asUser(STRANGER_UID, () =>
      tailnetChecks({
        tailnet: { socketPath, nodePort, ports: [], tags: [], users: [] },
        clock: systemClock,
        signal: new AbortController().signal,
        script: join(home, 'dist/program.js'),
        env: {},
      }),
    );
  expect(await check()).toEqual([
    {
      verdict: 'broken',
      subject: 'tailscaled',
      text: expect.stringContaining('this user may not open it (EACCES)'),
      advice: { text: 'open the socket for it, or run as a user who may' },
    },
  ]);
  await chmod(socketPath, 0o666);
  expect((await check())[0]).toMatchObject({
    verdict: 'ok',
    text: expect.stringMatching(/^running, 1\.98\.10; desk\.tailnet\.test/),
  });
});

test('the doctor reports the LAN as switched off, without an interface, with a wrong interface, and in use', async (context) => {
  needNamespaces(context);
  const namespaces = await NamespaceSet.open('doctor');
  onTestFinished(() => namespaces.close());
  const namespace = await namespaces.add('one');
  const line = async (interfaces: string | undefined): Promise<unknown> => {
    const env = { ...stage.env };
    if (interfaces === undefined) delete env['OPENCODE_MDNS_INTERFACES'];
    else env['OPENCODE_MDNS_INTERFACES'] = interfaces;
    const { report } = await stage.doctor([], { env, namespace });
    return lineOf(report, 'UDP 5353', /^/);
  };
  expect(await line('none')).toMatchObject({ verdict: '-', text: expect.stringMatching(/^switched off.*unset that/) });
  expect(await line(undefined)).toMatchObject({
    verdict: '-',
    text: expect.stringContaining('no network interface but loopback has an address'),
  });
  await ipIn(namespace, 'link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'far0');
  await ipIn(namespace, 'link', 'set', 'far0', 'up');
  await ipIn(namespace, 'addr', 'add', '10.77.0.1/24', 'dev', 'lan0');
  await ipIn(namespace, 'link', 'set', 'lan0', 'up');
  expect(await line('eth7')).toMatchObject({
    verdict: 'warn',
    text: expect.stringContaining('no interface eth7 has an address'),
    advice: { text: expect.stringContaining('or unset it') },
  });
  expect(await line(undefined)).toMatchObject({ verdict: 'ok', text: expect.stringContaining('lan0 10.77.0.1') });
});
