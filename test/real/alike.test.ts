import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { CredentialRule } from '../../src/config/settings.ts';
import { createCredentialResolver } from '../../src/credentials/resolver.ts';
import { createSecretCommands } from '../../src/credentials/secret-commands.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import { silentLogger } from '../../src/base/log.ts';
import { type Call, type Runtime } from '../../src/operations/runtime.ts';
import { send } from '../../src/operations/send/send.ts';
import { listSessions } from '../../src/operations/sessions/sessions.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { candidate } from '../fleet/candidates.ts';
import { TestSource } from '../fleet/world.ts';
import { testRuntime } from '../rig/runtime.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { cannotMakeLaptops, LAPTOP_PORT, startTwins, type Twins } from '../rig/laptops.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { type Opencode, startOpencode } from '../rig/opencode.ts';
import { until } from '../rig/wait.ts';

const PASSWORD = 'of-the-real-one';
/** Short: in a proof that is silent it is waited for to its end. */
const DEADLINE_MS = 4_000;

function call(): Call {
  return { signal: new AbortController().signal, deadlineMs: systemClock.monotonic() + 40_000, onProgress: () => {} };
}

/** A directory over what the test's source tells, with the credentials that a person has configured. */
function open(source: TestSource, credentialRules: readonly CredentialRule[] = []): Runtime {
  const resolver = createCredentialResolver(
    { credentialRules, defaultCredential: { password: { kind: 'value', value: PASSWORD } } },
    { commands: createSecretCommands({ clock: systemClock, signal: new AbortController().signal }) },
  );
  const fleet = new LiveFleet({
    settings: { discoveryIntervalMs: 5_000, healthCheckTimeoutMs: DEADLINE_MS, healthConcurrency: 8 },
    sources: [source],
    resolveCredential: (one, signal) => resolver.resolve(one, signal),
    clock: systemClock,
    logger: silentLogger,
  });
  fleet.start();
  return testRuntime(fleet);
}

const names = ({ fleet }: Runtime): string[] =>
  fleet.snapshot().instances.map(({ server }) => server.endpoints.map(({ candidate: { key } }) => key).join(' '));

describe.skipIf(cannotMakeLaptops() || isMissing(PINNED_OPENCODE))(
  'two laptops alike in everything but the machine',
  () => {
    describe.each([
      ['with a copied home', 'copied', 1],
      ['with one home that both have mounted', 'shared', 2],
    ] as const)('%s', (_, home, serial) => {
      let twins: Twins;
      let runtime: Runtime;

      beforeAll(async () => {
        twins = await startTwins(home, PASSWORD, serial);
        const source = new TestSource();
        const claims = {
          name: 'work',
          hostname: 'laptop',
          localPort: LAPTOP_PORT,
          directory: twins.directory,
          // A machine that was copied as it ran has the id of the other one too.
          id: 'copied-as-it-ran',
        };
        for (const [index, laptop] of twins.laptops.entries()) {
          process.stdout.write(`${laptop.describe()}\n`);
          const made = candidate({
            key: `m${index}`,
            url: `http://10.213.0.${index + 2}:${LAPTOP_PORT}`,
            route: 'tailnet',
            claims,
          });
          source.candidates.set(made.key, { ...made, endpoint: { ...made.endpoint, dial: laptop.dial } });
        }
        runtime = open(source);
        await until('both to answer', () => names(runtime).length === 2);
      });
      afterAll(async () => {
        await runtime?.fleet.close();
        await twins?.[Symbol.asyncDispose]();
      });

      const sessionsOf = async (index: 0 | 1): Promise<readonly { readonly id: string }[]> =>
        (await twins.laptops[index].json('/session')) as readonly { readonly id: string }[];

      test('they have their sessions in common', async () => {
        const [one, other] = await Promise.all([sessionsOf(0), sessionsOf(1)]);
        expect(one).toHaveLength(1);
        expect(other.map(({ id }) => id)).toEqual(one.map(({ id }) => id));
      });

      test('they stay two, under two names, however often it is tried to prove them one', async () => {
        await runtime.fleet.refresh();
        const oldest = (): number =>
          Math.min(
            ...runtime.fleet
              .snapshot()
              .instances.flatMap(({ server }) => server.endpoints.map(({ probedAtMs }) => probedAtMs ?? 0)),
          );
        const startMs = oldest();
        await until('further rounds', () => oldest() > startMs + 2 * DEADLINE_MS);
        // Whichever answered first got the name.
        expect(names(runtime).toSorted()).toEqual(['m0', 'm1']);
        expect(runtime.fleet.snapshot().instances.map(({ name }) => name)).toEqual([
          'work',
          expect.stringMatching(/^work@laptop/),
        ]);
      });

      test('words for the one never reach the other when the one is gone', async () => {
        const { instances } = runtime.fleet.snapshot();
        const named = instances.find(({ server }) => server.endpoints[0].candidate.key === 'm0')?.name ?? '';
        const [session] = await sessionsOf(0);
        const session_id = session?.id ?? '';
        await listSessions(runtime, { instance: named }, call());
        const look = runtime.fleet.reach.bind(runtime.fleet);
        const instance = runtime.fleet.resolve(named);
        const reached = await look(instance);
        twins.laptops[0].down();
        await expect(runtime.fleet.reachAnother(reached, [reached.endpointId])).rejects.toThrow(/cannot be reached/);
        await expect(send(runtime, { instance: named, session_id, message: 'for one only' }, call())).rejects.toThrow(
          /cannot be driven now/,
        );
        expect((await getStatus(runtime, { instance: named }, call())).data.state).toBe('offline');
        expect(await twins.laptops[1].json(`/session/${session_id}/message`)).toEqual([]);
      });
    });
  },
);

describe.skipIf(isMissing(PINNED_OPENCODE))('a liar on the LAN that copies what a real opencode announces', () => {
  let opencode: Opencode;
  let liar: FakeOpencode;
  let atLiar: FaultProxy;
  let inTheMiddle: FaultProxy;
  let real: FaultProxy;
  let runtime: Runtime;
  const source = new TestSource();
  const authorized = ({ requests }: FaultProxy): number =>
    requests.filter(({ headers }) => headers.authorization !== undefined).length;

  beforeAll(async () => {
    opencode = await startOpencode({ password: PASSWORD });
    process.stdout.write(`${opencode.describe()}\n`);
    liar = await startFakeOpencode({ directory: opencode.directory });
    [atLiar, inTheMiddle, real] = (await Promise.all([liar.url, opencode.url, opencode.url].map(startFaultProxy))) as [
      FaultProxy,
      FaultProxy,
      FaultProxy,
    ];
    const claims = {
      name: 'work',
      id: 'of-the-real-one',
      hostname: 'laptop',
      localPort: opencode.port,
      directory: opencode.directory,
    };
    source.candidates.set('real', candidate({ key: 'real', url: real.url, route: 'relay', claims }));
    source.candidates.set('liar', candidate({ key: 'liar', url: atLiar.url, route: 'lan', claims }));
    source.candidates.set('middle', candidate({ key: 'middle', url: inTheMiddle.url, route: 'lan', claims }));
    runtime = open(source, [
      // Nothing that a pattern admits is meant for what anyone may announce.
      { name: '*', source: '*', credential: { password: { kind: 'value', value: PASSWORD } } },
    ]);
    await until('all to be asked', () => names(runtime).length === 3);
  });
  afterAll(async () => {
    await runtime?.fleet.close();
    await Promise.all([atLiar, inTheMiddle, real, liar, opencode].map((one) => one?.close()));
  });

  const instance = (key: string) =>
    runtime.fleet.snapshot().instances.find(({ server }) => server.endpoints[0].candidate.key === key);

  test('is not joined: three entries, and the name stays with the real one', async () => {
    await until(
      'the proof to have been tried',
      () => atLiar.count({ path: '/global/event' }) + atLiar.count({ path: /abort$/ }) > 0,
    );
    await runtime.fleet.refresh();
    expect(names(runtime).toSorted()).toEqual(['liar', 'middle', 'real']);
    expect([instance('real')?.name, instance('liar')?.state, instance('middle')?.state]).toEqual([
      'work',
      'idle',
      'locked',
    ]);
    expect(instance('liar')?.name).toMatch(/^work@laptop/);
  });

  test('gets no credential, and none goes to what it passes on', () => {
    expect(atLiar.requests.length).toBeGreaterThan(0);
    expect([authorized(atLiar), authorized(inTheMiddle)]).toEqual([0, 0]);
    expect(authorized(real)).toBeGreaterThan(0);
  });

  test('is no way to go on by, whether the real one is there or not', async () => {
    const reached = await runtime.fleet.reach(runtime.fleet.resolve('work'));
    await expect(runtime.fleet.reachAnother(reached, [reached.endpointId])).rejects.toThrow(/cannot be reached/);
    await real.down();
    await expect(send(runtime, { instance: 'work', message: 'for the real one' }, call())).rejects.toThrow(
      /cannot be driven now/,
    );
    await expect(runtime.fleet.reachAnother(reached, [])).rejects.toThrow(/cannot be driven now/);
    expect(liar.state.prompts).toEqual([]);
    expect([authorized(atLiar), authorized(inTheMiddle)]).toEqual([0, 0]);
    await real.up();
  });

  test('is not the one that a part of its name means', () => {
    expect(() => runtime.fleet.resolve('work@lap')).toThrow(/only a part of|fits \d instances/);
  });
});
