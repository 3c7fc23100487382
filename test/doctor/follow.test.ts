import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { type StartedRuntime, startRuntime } from '../../src/commands/terminal/start-runtime.ts';
import { type Examination, examineName } from '../../src/doctor/examine.ts';
import { follow } from '../../src/doctor/follow.ts';
import { reportOf } from '../../src/doctor/report.ts';
import { World } from '../fleet/world.ts';
import { freePort } from '../rig/ports.ts';
import { type DoctorStage, examination, lineOf, openDoctorStage, settingsOf, todoThat } from './stage.ts';

describe('doctor NAME', () => {
  let stage: DoctorStage;
  let runtime: StartedRuntime;
  let input: Examination;
  beforeAll(async () => {
    stage = await openDoctorStage();
    // Nothing listens at these addresses.
    stage.tailscaled.peers = [
      { HostName: 'laptop', DNSName: 'laptop.tailnet.test.', TailscaleIPs: ['127.0.0.3'] },
      { HostName: 'phone', DNSName: 'phone.tailnet.test.', OS: 'iOS', TailscaleIPs: ['127.0.0.4'] },
      { HostName: 'bobs', DNSName: 'bobs.tailnet.test.', UserID: 7, TailscaleIPs: ['127.0.0.5'] },
    ];
    await stage.registry.add({ name: 'web-one', port: await freePort(), cwd: '/srv/web' });
    await stage.registry.writeRaw('server-app.json', '{"name": "server-app"');
    const { settings } = await settingsOf(stage.home, stage.env);
    runtime = startRuntime(settings, silentLogger);
    input = await examination(stage.home, stage.env, runtime.runtime.fleet, systemClock);
  });
  afterAll(async () => {
    await runtime.close();
    await stage[Symbol.asyncDispose]();
  });

  test('shows the sources, probes and name of a healthy instance', async () => {
    const { code, report } = await stage.doctor(['desk']);
    expect([code, report.verdict, report.name]).toEqual([0, 'ok', 'desk']);
    expect(report.sections.map(({ id }) => id)).toEqual(['seen', 'instances', 'name']);
    expect(
      lineOf(report, 'local-relay', /^desk\.json as desk at http:\/\/127\.0\.0\.1:\d+ \(loopback\)$/)?.verdict,
    ).toBe('ok');
    expect(lineOf(report, 'tailscale', /^no, among 0 seen$/)?.verdict).toBe('-');
    expect(lineOf(report, 'desk', /^idle · host .* · \/home\/ada\/desk$/)?.details?.[0]?.endpoint).toMatchObject({
      route: 'loopback',
      state: 'healthy',
      dialect: 'opencode-1',
      identity: 'only',
      password: 'not asked for',
    });
    expect(lineOf(report, 'desk', /^is its name in every tool$/)?.verdict).toBe('ok');
  });

  test('advises on a dead instance', async () => {
    const report = await examineName('web', input);
    expect(report.verdict).toBe('broken');
    expect(report.todo).toHaveLength(1);
    expect(todoThat(/rm \S+web-one\.json$/, report)).toBeDefined();
  });

  test.each<[string, string, RegExp, RegExp]>([
    [
      'on a machine without a node service',
      'laptop-api',
      /nothing listens on port \d+ \(node service\) and/,
      /^laptop: run the node service there/,
    ],
    [
      'on another user’s machine',
      'bobs-api',
      /belongs to "another user"/,
      /^bobs: name that login in OPENCODE_TAILNET_USERS/,
    ],
    ['with an incomplete registration', 'server-app', /is not complete JSON/, /server-app\.json: is not complete JSON/],
    ['with a mistyped name', 'dekk', /^nothing with that name/, /^did you mean desk\?: opencode-mcp doctor desk$/],
    ['with a name unlike any other', 'zzz', /^nothing with that name/, /opencode-connected status$/],
  ])('explains a missing instance %s', async (_, name, says, advice) => {
    const report = await examineName(name, input);
    expect(report.verdict).toBe('broken');
    expect(lineOf(report, /./, says), JSON.stringify(report.sections)).toBeDefined();
    expect(report.todo).toHaveLength(1);
    expect(todoThat(advice, report)).toBeDefined();
  });

  test('shows, without a name, what each source left out', async () => {
    const { report } = await stage.doctor();
    expect(lineOf(report, 'phone', /runs iOS, which opencode does not support/)?.verdict).toBe('-');
    expect(lineOf(report, 'tailscale', /^0 seen, 3 left out, scanned/)?.verdict).toBe('ok');
  });
});

test('explains that an instance keeps its name after it is gone, and names the new instance', async () => {
  await using world = new World();
  const [first, second] = [await world.fake(), await world.fake()];
  world.register('one', first, { claims: { name: 'web', hostname: 'box' } });
  await world.start();
  expect(world.listed()).toEqual(['web idle']);
  world.source.candidates.delete('one');
  await world.add('two', second, { claims: { name: 'web', hostname: 'other' } });
  const report = reportOf('1', follow('web', world.fleet.snapshot(), []), 'web');
  expect(lineOf(report, '"web"', /gone: it is no longer registered; the new one is called web@other/)?.verdict).toBe(
    'warn',
  );
  const { text } = todoThat(/^call it web@other; after a restart the server/, report);
  expect(text).toBeDefined();
  // The advised name works.
  expect(world.fleet.resolve('web@other').host).toBe('other');
});
