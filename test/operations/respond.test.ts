import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Approver } from '../../src/config/settings.ts';
import type { LiveFleet } from '../../src/fleet/fleet.ts';
import { respond, type RespondInput } from '../../src/operations/respond/respond.ts';
import type { PersonAnswer } from '../../src/operations/runtime.ts';
import { candidate } from '../fleet/candidates.ts';
import { TestSource } from '../fleet/world.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { testCall, testFleet, testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';

type Kind = 'permission' | 'question';
type Own = Omit<RespondInput, 'instance'>;

let fake: FakeOpencode;
let fleet: LiveFleet;

beforeEach(async () => {
  fake = await startFakeOpencode();
  const source = new TestSource();
  source.candidates.set('worker', candidate({ key: 'worker', url: fake.url, claims: { name: 'worker' } }));
  fleet = testFleet(source);
  fleet.start();
  await fleet.ready();
});
afterEach(async () => {
  await fleet.close();
  await fake.close();
});

/** A session that waits for an answer, and the request. */
function waiting(kind: Kind, directory = fake.directory): { readonly sessionID: string; readonly request: string } {
  const { id: sessionID } = fake.addSession({ directory });
  fake.state.begin(sessionID, 'x');
  const { id: request } = kind === 'permission' ? fake.addPermission({ sessionID }) : fake.addQuestion({ sessionID });
  return { sessionID, request };
}

const answer = (own: Own, approve: Approver = 'ask', person?: PersonAnswer): ReturnType<typeof respond> =>
  respond(
    testRuntime(fleet, undefined, approve),
    { instance: 'worker', ...own },
    testCall(person === undefined ? {} : { askPerson: () => Promise.resolve(person) }),
  );

const open = (): number => fake.state.permissions.size + fake.state.questions.size;

test.each<readonly [Approver, Kind, Own, RegExp]>([
  ['ask', 'permission', {}, /needs reply: once or reply: reject/],
  ['ask', 'permission', { reply: 'always' }, /a standing permission is the person's to give/i],
  ['ask', 'permission', { answers: [['Yes']] }, /goes with a question/],
  ['ask', 'permission', { reply: 'once', message: 'why not' }, /a message goes with .*reject/i],
  ['ask', 'question', {}, /needs answers/],
  ['ask', 'question', { reply: 'once' }, /A question waits/],
  ['human', 'permission', { reply: 'once' }, /\(approve: human\).*in that opencode, on worker/],
  ['never', 'permission', { reply: 'reject' }, /\(approve: never\).*in that opencode, on worker/],
])('approve: %s, a %s, %j: nothing is answered', async (approve, kind, own, reason) => {
  waiting(kind);
  const error = await answer(own, approve).catch(String);
  expect(error).toMatch(/nothing was answered/i);
  expect(error).toMatch(reason);
  expect(open()).toBe(1);
});

test.each<readonly [Approver, Kind, Own, string]>([
  ['model', 'permission', { reply: 'once' }, 'allowed once'],
  ['ask', 'permission', { reply: 'reject' }, 'rejected'],
  ['human', 'question', { reply: 'reject' }, 'rejected'],
  ['ask', 'question', { answers: [['Yes']] }, 'answered'],
  ['human', 'permission', { reply: 'reject' }, 'rejected'],
])('approve: %s, a %s, %j: settled without asking the person', async (approve, kind, own, settled) => {
  const { sessionID } = waiting(kind);
  const answering = answer(own, approve, { kind: 'unavailable', reason: 'nobody may be asked here' });
  await until('the request to be settled', () => open() === 0);
  fake.state.finish(sessionID, 'done');
  expect((await answering).data).toMatchObject({ outcome: 'completed', settled: expect.stringContaining(settled) });
});

test.each<readonly [Approver, Own]>([
  ['ask', { reply: 'once' }],
  ['human', { reply: 'once' }],
  ['human', {}],
])("approve: %s, %j: the person's decision counts", async (approve, own) => {
  const { sessionID } = waiting('permission');
  const answering = answer(own, approve, { kind: 'accepted', fields: { decision: 'always' } });
  await until('the request to be settled', () => open() === 0);
  fake.state.finish(sessionID, 'done');
  expect((await answering).data.settled).toContain('allowed always');
});

test('the number of things that wait includes those that are not listed', async () => {
  for (let count = 0; count < 21; count += 1) waiting('permission');
  await expect(answer({ reply: 'once' })).rejects.toThrow(/waits for 21 things; nothing was answered.*; 1 more\.$/);
  expect(open()).toBe(21);
});

test('without a request that fits, the error says what waits, and where', async () => {
  await expect(answer({ reply: 'once' })).rejects.toThrow(/worker waits for nothing; nothing was answered/);
  const elsewhere = waiting('permission', '/elsewhere');
  await expect(answer({ reply: 'once' })).rejects.toThrow(/other directories, as worker-elsewhere: .*that instance/);
  const [one, two] = [waiting('permission'), waiting('question')];
  const unclear = await answer({ reply: 'once' }).catch(String);
  expect(unclear).toMatch(/worker waits for 2 things; nothing was answered/);
  for (const { request } of [one, two]) expect(unclear).toContain(request);
  expect(unclear).not.toContain(elsewhere.request);
  await expect(answer({ request_id: 'per_gone', reply: 'once' })).rejects.toThrow(
    /worker does not wait for "per_gone" any more; nothing was answered/,
  );
  expect(open()).toBe(3);
});
