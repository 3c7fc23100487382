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
type Input = Omit<RespondInput, 'instance'>;

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
function addRequest(kind: Kind, directory = fake.directory): { readonly sessionID: string; readonly request: string } {
  const { id: sessionID } = fake.addSession({ directory });
  fake.state.begin(sessionID, 'x');
  const { id: request } = kind === 'permission' ? fake.addPermission({ sessionID }) : fake.addQuestion({ sessionID });
  return { sessionID, request };
}

const answer = (input: Input, approve: Approver = 'ask', person?: PersonAnswer): ReturnType<typeof respond> =>
  respond(
    testRuntime(fleet, undefined, approve),
    { instance: 'worker', ...input },
    testCall(person === undefined ? {} : { askPerson: () => Promise.resolve(person) }),
  );

const openCount = (): number => fake.state.permissions.size + fake.state.questions.size;

test.each<readonly [Approver, Kind, Input, RegExp]>([
  ['ask', 'permission', {}, /needs reply: once or reply: reject/],
  ['ask', 'permission', { reply: 'always' }, /a standing permission is the person's to give/i],
  ['ask', 'permission', { answers: [['Yes']] }, /goes with a question/],
  ['ask', 'permission', { reply: 'once', message: 'why not' }, /a message goes with .*reject/i],
  ['ask', 'question', {}, /needs answers/],
  ['ask', 'question', { reply: 'once' }, /A question waits/],
  ['human', 'permission', { reply: 'once' }, /\(approve: human\).*in that opencode, on worker/],
  ['never', 'permission', { reply: 'reject' }, /\(approve: never\).*in that opencode, on worker/],
])('with approve: %s, a %s stays open after %j', async (approve, kind, input, reason) => {
  addRequest(kind);
  const error = await answer(input, approve).catch(String);
  expect(error).toMatch(/nothing was answered/i);
  expect(error).toMatch(reason);
  expect(openCount()).toBe(1);
});

test.each<readonly [Approver, Kind, Input, string]>([
  ['model', 'permission', { reply: 'once' }, 'allowed once'],
  ['ask', 'permission', { reply: 'reject' }, 'rejected'],
  ['human', 'question', { reply: 'reject' }, 'rejected'],
  ['ask', 'question', { answers: [['Yes']] }, 'answered'],
  ['human', 'permission', { reply: 'reject' }, 'rejected'],
])('with approve: %s, a %s is settled by %j without asking the person', async (approve, kind, input, settled) => {
  const { sessionID } = addRequest(kind);
  const answering = answer(input, approve, { kind: 'unavailable', reason: 'nobody may be asked here' });
  await until('the request to be settled', () => openCount() === 0);
  fake.state.finish(sessionID, 'done');
  expect((await answering).data).toMatchObject({ outcome: 'completed', settled: expect.stringContaining(settled) });
});

test.each<readonly [Approver, Input]>([
  ['ask', { reply: 'once' }],
  ['human', { reply: 'once' }],
  ['human', {}],
])("with approve: %s, the person's decision overrides %j", async (approve, input) => {
  const { sessionID } = addRequest('permission');
  const answering = answer(input, approve, { kind: 'accepted', fields: { decision: 'always' } });
  await until('the request to be settled', () => openCount() === 0);
  fake.state.finish(sessionID, 'done');
  expect((await answering).data.settled).toContain('allowed always');
});

test('the error counts the waiting requests that it does not list', async () => {
  for (let count = 0; count < 21; count += 1) addRequest('permission');
  await expect(answer({ reply: 'once' })).rejects.toThrow(/waits for 21 things; nothing was answered.*; 1 more\.$/);
  expect(openCount()).toBe(21);
});

test('if no single request matches, the error lists the waiting ones and their instances', async () => {
  await expect(answer({ reply: 'once' })).rejects.toThrow(/worker waits for nothing; nothing was answered/);
  const elsewhere = addRequest('permission', '/elsewhere');
  await expect(answer({ reply: 'once' })).rejects.toThrow(/other directories, as worker-elsewhere: .*that instance/);
  const [one, two] = [addRequest('permission'), addRequest('question')];
  const unclear = await answer({ reply: 'once' }).catch(String);
  expect(unclear).toMatch(/worker waits for 2 things; nothing was answered/);
  for (const { request } of [one, two]) expect(unclear).toContain(request);
  expect(unclear).not.toContain(elsewhere.request);
  await expect(answer({ request_id: 'per_gone', reply: 'once' })).rejects.toThrow(
    /worker does not wait for "per_gone" any more; nothing was answered/,
  );
  expect(openCount()).toBe(3);
});
