import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { LiveFleet } from '../../src/fleet/fleet.ts';
import { abortSession } from '../../src/operations/send/abort.ts';
import { getDiff } from '../../src/operations/inspect/changes.ts';
import { listFiles, readFile } from '../../src/operations/inspect/files.ts';
import { versionShown } from '../../src/operations/listing/endpoints-shown.ts';
import { instances } from '../../src/operations/listing/instances.ts';
import { read } from '../../src/operations/sessions/read.ts';
import { type Runtime } from '../../src/operations/runtime.ts';
import { search } from '../../src/operations/inspect/search.ts';
import { send } from '../../src/operations/send/send.ts';
import { deleteSession, forkSession, renameSession } from '../../src/operations/sessions/session-changes.ts';
import { createSession, listSessions } from '../../src/operations/sessions/sessions.ts';
import { getStatus } from '../../src/operations/listing/status.ts';
import { candidate } from '../fleet/candidates.ts';
import { settle } from '../fleet/manual-clock.ts';
import { TestSource } from '../fleet/world.ts';
import { testCall, testFleet, testRuntime } from '../rig/runtime.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import type { FakeSession } from '../rig/fake/fake-objects.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { until } from '../rig/wait.ts';

let fake: FakeOpencode;
let tailnet: FaultProxy;
let relay: FaultProxy;
let fleet: LiveFleet;
let runtime: Runtime;
let session: FakeSession;
/** Counts the requests over an endpoint since the test began; without `match`, all but those of probes. */
let countRequests: (proxy: FaultProxy, match?: { readonly path: RegExp }) => number;

/** Starts one server with a tailnet endpoint, which is preferred, and a relay endpoint. */
beforeEach(async () => {
  fake = await startFakeOpencode();
  session = fake.addSession({ title: 'work' });
  fake.state.files.set('a.txt', 'needle\n');
  [tailnet, relay] = await Promise.all([startFaultProxy(fake.url), startFaultProxy(fake.url)]);
  const source = new TestSource();
  const claims = { name: 'a', id: 'x', hostname: 'laptop', localPort: fake.port };
  source.candidates.set('t', candidate({ key: 't', url: tailnet.url, route: 'tailnet', claims }));
  source.candidates.set('r', candidate({ key: 'r', url: relay.url, route: 'relay', claims }));
  fleet = testFleet(source);
  runtime = testRuntime(fleet);
  fleet.start();
  await until('both endpoints to be one instance', () => fleet.snapshot().instances[0]?.server.endpoints.length === 2);
  await until('the probes to end', () => fleet.counters.inFlight === 0);
  const before = [tailnet, relay].map((proxy) => proxy.count({}));
  countRequests = (proxy, match) =>
    proxy.requests
      .slice(before[proxy === tailnet ? 0 : 1])
      .filter(({ path }) => match?.path.test(path) ?? NOT_PROBES.path(path)).length;
});
afterEach(async () => {
  await fleet.close();
  await Promise.all([tailnet.close(), relay.close(), fake.close()]);
});

/** Cuts the preferred endpoint as soon as it has been probed. */
function cutAfterReach(): void {
  const reach = fleet.reach.bind(fleet);
  fleet.reach = async (...query) => {
    const reached = await reach(...query);
    await tailnet.down();
    await settle();
    return reached;
  };
}

/** Matches all requests but those of probes, which must succeed. */
const NOT_PROBES = { path: (path: string) => path !== '/global/health' && path !== '/path' };
const INPUT = { instance: 'a' };
const LIST = { offset: 0, limit: 10 };
const ABORT = { path: /abort$/ };
const OPERATIONS: Readonly<Record<string, () => Promise<{ readonly data: unknown }>>> = {
  read: () => read(runtime, { ...INPUT, message_limit: 10 }, testCall()),
  list_sessions: () => listSessions(runtime, INPUT, testCall()),
  get_status: () => getStatus(runtime, INPUT, testCall()),
  get_diff: () => getDiff(runtime, { ...INPUT, offset: 0 }, testCall()),
  list_files: () => listFiles(runtime, { ...INPUT, path: '', offset: 0 }, testCall()),
  read_file: () => readFile(runtime, { ...INPUT, path: 'a.txt', line: 1, max_chars: 1_000 }, testCall()),
  search: () => search(runtime, { ...INPUT, query: 'needle', names: false }, testCall()),
  'abort of an idle session': () => abortSession(runtime, { ...INPUT, session_id: session.id }, testCall()),
};

describe('an operation whose endpoint fails', () => {
  test.each(Object.entries(OPERATIONS))(
    '%s has the same result over the next endpoint, in one call',
    async (name, run) => {
      const { data } = await run();
      expect(countRequests(relay)).toBe(0);
      tailnet.rule(NOT_PROBES, { kind: 'reset' });
      const swapped = { via: `relay ${relay.url}`, also: [`tailnet ${tailnet.url}`] };
      expect((await run()).data).toEqual({ ...(data as object), ...(name === 'get_status' && swapped) });
      expect(countRequests(relay)).toBeGreaterThan(0);
    },
  );

  test('abort is repeated and verified over the other endpoint', async () => {
    fake.state.begin(session.id, 'go on for ever', {});
    tailnet.rule(ABORT, { kind: 'lose-response' });
    const { data } = await abortSession(runtime, { ...INPUT, session_id: session.id }, testCall());
    expect(data).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect([countRequests(tailnet, ABORT), countRequests(relay, ABORT)]).toEqual([1, 1]);
  });

  /** Matches requests that change sessions, except the aborts of identity proofs. */
  const CHANGE_PATH = /^\/session(?:\/ses_[^/]*(?:\/fork)?)?$/;
  const onSession = () => ({ ...INPUT, session_id: session.id });
  const CHANGES: readonly (readonly [name: string, method: string, change: () => Promise<unknown>])[] = [
    ['create_session', 'POST', () => createSession(runtime, INPUT, testCall())],
    ['fork_session', 'POST', () => forkSession(runtime, onSession(), testCall())],
    ['rename_session', 'PATCH', () => renameSession(runtime, { ...onSession(), title: 'x' }, testCall())],
    ['delete_session', 'DELETE', () => deleteSession(runtime, onSession(), testCall())],
  ];

  test.each(CHANGES)('%s makes its change over the other endpoint if nothing was sent', async (_, method, change) => {
    cutAfterReach();
    await change();
    expect(relay.count({ method, path: CHANGE_PATH })).toBe(1);
  });

  test.each(CHANGES)('%s does not repeat its change if the answer is lost', async (_, method, change) => {
    const match = { method, path: CHANGE_PATH };
    tailnet.rule(match, { kind: 'lose-response' });
    // The effect is read over the other endpoint; a new session has no known effect to look for.
    await change().catch((error: unknown) => expect(String(error)).toMatch(/it is unknown whether.*ECONNRESET/));
    expect([tailnet.count(match), relay.count(match)]).toEqual([1, 0]);
  });

  test('send uses the other endpoint for the prompt if nothing was sent', async () => {
    cutAfterReach();
    const sending = send(runtime, { ...INPUT, session_id: session.id, message: 'hello' }, testCall());
    await until('the turn to run', () => fake.state.statuses.size > 0);
    await until('the turn to be followed', () => relay.openStreams > 0);
    fake.state.finish(session.id, 'done');
    expect((await sending).data).toMatchObject({ outcome: 'completed', text: 'done' });
    expect(fake.state.prompts).toHaveLength(1);
  });
});

describe('an instance whose endpoints are cut', () => {
  /** A move adds text, cuts the stream in use, or stops the endpoint in use and restores the other. */
  const moves = fc.array(
    fc.oneof(
      { weight: 3, arbitrary: fc.string({ minLength: 1, maxLength: 6 }).map((say) => ({ say })) },
      { weight: 1, arbitrary: fc.boolean().map((wait) => ({ cut: 'streams' as const, wait })) },
      { weight: 1, arbitrary: fc.boolean().map((wait) => ({ cut: 'endpoint' as const, wait })) },
    ),
    { minLength: 2, maxLength: 10 },
  );
  const streams = (): number => tailnet.openStreams + relay.openStreams;

  async function cut(how: 'streams' | 'endpoint'): Promise<void> {
    const [inUse, other] = tailnet.openStreams > 0 ? [tailnet, relay] : [relay, tailnet];
    if (how === 'streams') {
      inUse.cutStreams();
      return;
    }
    await other.up();
    await inUse.down();
  }

  test('shows each character of a turn once, wherever its endpoints are cut', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(moves, async (moveList) => {
        const own = fake.addSession();
        let shown = '';
        const sending = send(
          runtime,
          { ...INPUT, session_id: own.id, message: 'speak' },
          testCall({ onProgress: (text) => (shown += text) }),
        );
        await until('the turn to run', () => fake.state.statuses.has(own.id) && streams() === 1);
        let stored = '';
        for (const move of moveList) {
          if ('say' in move) {
            stored += move.say;
            fake.state.say(own.id, move.say);
            continue;
          }
          await cut(move.cut);
          if (move.wait) await until('the turn to be followed again', () => streams() === 1);
        }
        fake.state.finish(own.id, '.');
        const { data } = await sending;
        const messages = fake.state.messages.get(own.id) ?? [];
        expect(messages.map(({ parts }) => parts.map(({ text }) => text).join(''))).toEqual(['speak', `${stored}.`]);
        expect([data.outcome, shown]).toEqual(['completed', `${stored}.`]);
        await Promise.all([tailnet.up(), relay.up()]);
      }),
      { numRuns: 20 },
    );
  });

  test('is offline with a reason for each endpoint, and idle again as soon as one endpoint is up', async () => {
    await Promise.all([tailnet.down(), relay.down()]);
    expect((await instances(runtime, LIST, testCall())).data.instances).toMatchObject([
      { name: 'a', state: 'offline' },
    ]);
    expect((await getStatus(runtime, INPUT, testCall())).data).toMatchObject({
      state: 'offline',
      reason: expect.stringMatching(
        new RegExp(`${tailnet.url}: .*ECONNREFUSED.*${relay.url}: .*ECONNREFUSED`),
      ) as string,
    });
    await relay.up();
    expect((await instances(runtime, LIST, testCall())).data.instances).toMatchObject([
      { name: 'a', state: 'idle', via: `relay ${relay.url}`, also: [`tailnet ${tailnet.url} (down)`] },
    ]);
  });
});

test('the version of the OpenCode 2 preview is not displayed as a version of OpenCode 1', () => {
  expect(versionShown({ version: '1.18.18', dialect: 'opencode-2-preview' })).toBe('2 (preview 1.18.18)');
  expect(versionShown({ version: '2 (preview)', dialect: 'opencode-2-preview' })).toBe('2 (preview)');
  expect(versionShown({ version: '2.1.2', dialect: 'opencode-2' })).toBe('2.1.2');
  expect(versionShown({ version: '1.18.33', dialect: 'opencode-1' })).toBe('1.18.33');
});
