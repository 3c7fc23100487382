import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { CredentialRule } from '../../src/config/settings.ts';
import { createCredentialResolver } from '../../src/credentials/resolver.ts';
import { createSecretCommands } from '../../src/credentials/secret-commands.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import { send } from '../../src/operations/send/send.ts';
import { listSessions } from '../../src/operations/sessions/sessions.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { candidate } from '../fleet/candidates.ts';
import { TestSource } from '../fleet/world.ts';
import { testCall, testRuntime } from '../rig/runtime.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { cannotMakeLaptops, LAPTOP_PORT, startTwins, type Twins } from '../rig/network/laptops.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { type Opencode, startOpencode } from '../rig/opencode/opencode.ts';
import { until } from '../rig/wait.ts';

const PASSWORD = 'of-the-real-one';
/** Short: a proof to which nothing answers takes all of it. */
const DEADLINE_MS = 4_000;

/** A runtime over the candidates of `source`, with the configured credentials. */
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
  'two laptops that differ only in the machine',
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
          // A running machine was copied, with its id.
          id: 'copied-while-it-ran',
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

      test('have the same sessions', async () => {
        const [one, other] = await Promise.all([sessionsOf(0), sessionsOf(1)]);
        expect(one).toHaveLength(1);
        expect(other.map(({ id }) => id)).toEqual(one.map(({ id }) => id));
      });

      test('remain two instances with two names over several rounds of proofs', async () => {
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

      test('never get a message for the other one, even after that one has stopped', async () => {
        const { instances } = runtime.fleet.snapshot();
        const named = instances.find(({ server }) => server.endpoints[0].candidate.key === 'm0')?.name ?? '';
        const [session] = await sessionsOf(0);
        const session_id = session?.id ?? '';
        await listSessions(runtime, { instance: named }, testCall());
        const reached = await runtime.fleet.reach(runtime.fleet.resolve(named));
        twins.laptops[0].down();
        await expect(runtime.fleet.reachAnother(reached, [reached.endpointId])).rejects.toThrow(/cannot be reached/);
        await expect(
          send(runtime, { instance: named, session_id, message: 'for one only' }, testCall()),
        ).rejects.toThrow(/cannot be driven now/);
        expect((await getStatus(runtime, { instance: named }, testCall())).data.state).toBe('offline');
        expect(await twins.laptops[1].json(`/session/${session_id}/message`)).toEqual([]);
      });
    });
  },
);

describe.skipIf(isMissing(PINNED_OPENCODE))(
  'an impostor on the LAN that copies the announcement of a real opencode',
  () => {
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
      [atLiar, inTheMiddle, real] = (await Promise.all(
        [liar.url, opencode.url, opencode.url].map(startFaultProxy),
      )) as [FaultProxy, FaultProxy, FaultProxy];
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
        // A rule with a pattern never sends a password to an announced address.
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

    test('is listed as a separate instance, and the real opencode keeps its name', async () => {
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

    test('gets no credential, even if it forwards requests to the real opencode', () => {
      expect(atLiar.requests.length).toBeGreaterThan(0);
      expect([authorized(atLiar), authorized(inTheMiddle)]).toEqual([0, 0]);
      expect(authorized(real)).toBeGreaterThan(0);
    });

    test('is never used instead of the real opencode, whether that is up or down', async () => {
      const reached = await runtime.fleet.reach(runtime.fleet.resolve('work'));
      await expect(runtime.fleet.reachAnother(reached, [reached.endpointId])).rejects.toThrow(/cannot be reached/);
      await real.down();
      await expect(send(runtime, { instance: 'work', message: 'for the real one' }, testCall())).rejects.toThrow(
        /cannot be driven now/,
      );
      await expect(runtime.fleet.reachAnother(reached, [])).rejects.toThrow(/cannot be driven now/);
      expect(liar.state.prompts).toEqual([]);
      expect([authorized(atLiar), authorized(inTheMiddle)]).toEqual([0, 0]);
      await real.up();
    });

    test('makes a part of the real name ambiguous', () => {
      expect(() => runtime.fleet.resolve('work@lap')).toThrow(/only a part of|fits \d instances/);
    });
  },
);
