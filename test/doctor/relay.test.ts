import { chmod, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';

import { announce } from '../rig/announce.ts';
import { installConnected, needSshd, startSshd } from '../rig/network/sshd.ts';
import { disposeAtEnd, type DoctorStage, lineOf, openDoctorStage, todoThat } from './stage.ts';

let stage: DoctorStage;
beforeAll(async () => {
  stage = await openDoctorStage();
});
afterAll(() => stage[Symbol.asyncDispose]());
beforeEach((context) => needSshd(context));

/** The registry directory on the relay. */
const there = (): string => join(stage.home, 'on-the-relay');

test.each<[string, string[], RegExp, string]>([
  ['that forbids forwarding', ['AllowTcpForwarding no'], /gave no port to the tunnel/, 'AllowTcpForwarding yes'],
  ['that opens tunnels to all', ['GatewayPorts yes'], /opened the tunnel to other machines/, 'GatewayPorts no'],
])('the advised line in sshd_config repairs a relay %s', async (_, config, says, line) => {
  stage.env['RELAY_REMOTE_REGISTRY_DIR'] = there();
  const wrong = disposeAtEnd(await startSshd({ config }));
  await installConnected(wrong);
  stage.env['RELAY_SSH_CMD'] = wrong.relaySshCommand;
  const before = await stage.doctor();
  expect(before.code).toBe(1);
  expect(lineOf(before.report, 'ssh', /reaches .* as uid \d+/)?.verdict).toBe('ok');
  expect(lineOf(before.report, 'forwarding', says)?.verdict).toBe('broken');
  const { command = '' } = todoThat(new RegExp(`sshd_config.*${line}$`), before.report);

  const right = disposeAtEnd(await startSshd({ config: [command] }));
  await installConnected(right);
  announce(right);
  stage.env['RELAY_SSH_CMD'] = right.relaySshCommand;
  const after = await stage.doctor();
  expect(after.report.todo).toEqual([]);
  expect(lineOf(after.report, 'forwarding', /^allowed, and closed to other machines/)?.verdict).toBe('ok');
  // The trial creates nothing there.
  expect(lineOf(after.report, 'registry there', /not created yet/)?.verdict).toBe('ok');
  expect(await readdir(stage.home)).not.toContain('on-the-relay');
});

test('the doctor reports a relay that cannot be reached, that lacks the program, or whose registry others can write', async () => {
  const sshd = disposeAtEnd(await startSshd());
  stage.env['RELAY_SSH_CMD'] = sshd.relaySshCommand;
  stage.env['RELAY_REMOTE_REGISTRY_DIR'] = there();
  await mkdir(there(), { mode: 0o700 });
  await chmod(there(), 0o777);
  await sshd.stop();
  const before = await stage.doctor();
  expect(before.code).toBe(1);
  expect(lineOf(before.report, 'ssh', /Connection refused/)?.verdict).toBe('broken');
  const { command: byHand = '' } = todoThat(/make this work without a question: ssh .* true$/, before.report);
  expect((await stage.type(byHand)).code).not.toBe(0);
  await sshd.start();
  expect((await stage.type(byHand)).code).toBe(0);

  const bare = await stage.doctor();
  expect(bare.code).toBe(1);
  expect(lineOf(bare.report, 'registry there', /finds no opencode-connected there/)?.verdict).toBe('broken');
  expect(todoThat(/install opencode-mcp on the relay/, bare.report)).toBeDefined();
  await installConnected(sshd);
  const tried = await stage.type(`${sshd.relaySshCommand} opencode-connected survey`);
  expect(tried.code).toBe(0);

  const open = await stage.doctor();
  expect(open.code).toBe(1);
  const { command = '' } = todoThat(/close it: ssh .* 'chmod go-w \S+on-the-relay'$/, open.report);
  expect((await stage.type(command)).code).toBe(0);
  const after = await stage.doctor();
  expect(after.report.todo).toEqual([]);
  expect(lineOf(after.report, 'registry there', /of uid \d+, registrations: 0/)?.verdict).toBe('ok');
});

test('the doctor reports an invalid RELAY_SSH_CMD', async () => {
  stage.env['RELAY_SSH_CMD'] = 'ssh "you@relay';
  const { code, report } = await stage.doctor();
  expect(code).toBe(1);
  expect(lineOf(report, 'RELAY_SSH_CMD', /the " at character 5 is not closed/)?.verdict).toBe('broken');
  expect(todoThat(/add the closing "/, report)).toBeDefined();
});
