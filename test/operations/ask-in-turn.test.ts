import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { beforeEach, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { Approvals } from '../../src/operations/respond/approval.ts';
import { type Call, createRuntime, type Form, type PersonAnswer, type Runtime } from '../../src/operations/runtime.ts';
import { RequestJournal } from '../../src/operations/send/request-journal.ts';
import { send } from '../../src/operations/send/send.ts';
import { wait } from '../../src/operations/send/wait.ts';
import type { TurnView } from '../../src/operations/shapes.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import { testCall } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { Stage } from './stage.ts';

const CALL_MS = 60_000;

let stage: Stage;
let fakes: { readonly a: FakeOpencode; readonly b: FakeOpencode };

beforeEach(async () => {
  stage = new Stage();
  const add = async (name: string): Promise<FakeOpencode> => (await stage.add(name, { reply: () => undefined })).fake;
  fakes = { a: await add('a'), b: await add('b') };
  await stage.start();
  return stage.close;
});

const requestsFolder = (): string => join(stage.temp.path, 'requests');

function runtimeFor(approvals: Partial<Approvals> = {}, clock = systemClock): Runtime {
  return createRuntime(stage.fleet, clock, {
    approvals: { approve: 'ask', approvalRules: [], ...approvals },
    journal: new RequestJournal(requestsFolder(), clock),
  });
}

/** A person who answers forms when the test says so; a form closes when its signal aborts. */
class Person {
  readonly forms: Form[] = [];
  /** The most forms open at the same time. */
  maxOpen = 0;
  #open: ((answer: PersonAnswer) => void)[] = [];

  readonly ask: NonNullable<Call['askPerson']> = (form, { signal }) =>
    new Promise((resolve) => {
      const close = (answer: PersonAnswer): void => {
        this.#open = this.#open.filter((one) => one !== close);
        resolve(answer);
      };
      this.forms.push(form);
      this.#open.push(close);
      this.maxOpen = Math.max(this.maxOpen, this.#open.length);
      signal.addEventListener('abort', () => close({ kind: 'late' }), { once: true });
    });

  get openForms(): number {
    return this.#open.length;
  }

  async answerNext(answer: PersonAnswer): Promise<void> {
    await until('the person to be asked', () => this.#open.length > 0);
    this.#open[0]?.(answer);
  }
}

const ONCE: PersonAnswer = { kind: 'accepted', fields: { decision: 'once' } };

function call(person: Person, extra: Partial<Call> = {}): Call {
  return testCall({ askPerson: person.ask, ...extra });
}

/** Lets the running turn write some text and stop at a request; returns the session's id. */
async function stopAtRequest(fake: FakeOpencode, kind: 'permission' | 'question' = 'permission'): Promise<string> {
  await until('the turn to run', () => fake.state.statuses.size === 1);
  const [sessionID = ''] = fake.state.statuses.keys();
  fake.state.say(sessionID, 'before, ');
  if (kind === 'permission') fake.addPermission({ sessionID });
  else fake.addQuestion({ sessionID });
  return sessionID;
}

const untilSettled = (fake: FakeOpencode): Promise<unknown> =>
  until('the request to be settled', () => fake.state.permissions.size === 0 && fake.state.questions.size === 0);
const replyCount = (fake: FakeOpencode): number =>
  fake.count('POST /permission/:id/reply') +
  fake.count('POST /question/:id/reply') +
  fake.count('POST /question/:id/reject');

const sendToA = async (person: Person, runtime = runtimeFor(), extra: Partial<Call> = {}): Promise<TurnView> =>
  (await send(runtime, { instance: 'a', message: 'x' }, call(person, extra))).data;
const waitForA = async (person: Person, runtime = runtimeFor(), extra: Partial<Call> = {}): Promise<TurnView> => {
  fakes.a.state.begin(fakes.a.addSession().id, 'x', {});
  const { data } = await wait(runtime, { instances: ['a'], for: 'any' }, call(person, extra));
  return data.turns?.[0] ?? data;
};

test.each([
  ['send', 'ask', sendToA],
  ['wait', 'human', waitForA],
] as const)('%s (approve: %s) asks the person and returns the answer of the whole turn', async (_, approve, begin) => {
  const person = new Person();
  const progress: string[] = [];
  const turn = begin(person, runtimeFor({ approve }), { onProgress: (text) => progress.push(text) });
  const sessionID = await stopAtRequest(fakes.a);
  await person.answerNext(ONCE);
  await untilSettled(fakes.a);
  fakes.a.state.finish(sessionID, 'after');
  expect(await turn).toMatchObject({
    outcome: 'completed',
    text: 'before, after',
    settled: expect.stringMatching(/^allowed once: permission per_\w+: «bash "ls"»$/) as string,
  });
  expect(progress.join('').replace('[a] ', '')).toBe('before, after');
  expect(person.forms).toHaveLength(1);
});

/** Sends a message whose turn stops at a request. */
async function sendUntilRequest({
  kind,
  approvals,
  ...extra
}: Partial<Call> & { readonly kind?: 'permission' | 'question'; readonly approvals?: Partial<Approvals> } = {}) {
  const person = new Person();
  const turn = sendToA(person, runtimeFor(approvals), extra);
  return { person, turn, sessionID: await stopAtRequest(fakes.a, kind) };
}

describe('a turn that stops at a request', () => {
  test('asks the person about each request', async () => {
    const { person, turn, sessionID } = await sendUntilRequest();
    await person.answerNext(ONCE);
    await untilSettled(fakes.a);
    fakes.a.addQuestion({ sessionID });
    await person.answerNext({ kind: 'accepted', fields: { answer_1: 'Yes' } });
    await untilSettled(fakes.a);
    fakes.a.state.finish(sessionID, 'after');
    expect(await turn).toMatchObject({
      outcome: 'completed',
      settled: expect.stringMatching(/^allowed once: permission .*; answered answer que_/) as string,
    });
  });

  test.each(['permission', 'question'] as const)('rejects a declined %s', async (kind) => {
    const { person, turn, sessionID } = await sendUntilRequest({ kind });
    await person.answerNext({ kind: 'declined' });
    await untilSettled(fakes.a);
    fakes.a.state.finish(sessionID, 'after');
    expect(await turn).toMatchObject({ outcome: 'completed', settled: expect.stringMatching(/^rejected/) as string });
    expect(fakes.a.count('POST /question/:id/reject') + fakes.a.count('POST /permission/:id/reply')).toBe(1);
  });

  test('settles nothing if the person closes the form, and gives that as the reason', async () => {
    const { person, turn } = await sendUntilRequest();
    await person.answerNext({ kind: 'dismissed' });
    const data = await turn;
    expect(data).toMatchObject({ outcome: 'waiting', reason: expect.stringContaining('closed the form') as string });
    expect(data.waiting).toEqual([expect.stringMatching(/^permission per_/)]);
    // `next` does not advise respond, which would ask the same person again.
    expect([data.next, data.settled, replyCount(fakes.a), person.forms.length]).toEqual([undefined, undefined, 0, 1]);
  });

  test.each([
    ['never', { approve: 'never' }],
    ['the model', { approve: 'model' }],
    ['the model, by a rule', { approvalRules: [{ permission: 'bash', pattern: 'ls', approve: 'model' }] }],
  ] as const)('shows no form if the approver is %s', async (_, approvals) => {
    const { person, turn } = await sendUntilRequest({ approvals });
    expect(await turn).toMatchObject({
      outcome: 'waiting',
      next: expect.stringContaining('Settle it with respond') as string,
    });
    expect(person.forms).toEqual([]);
  });

  test('closes the form of a request that is settled elsewhere, and follows the turn', async () => {
    const { person, turn, sessionID } = await sendUntilRequest();
    await until('the person to be asked', () => person.openForms === 1);
    const [id = ''] = fakes.a.state.permissions.keys();
    fakes.a.state.settle(id, 'permission.replied', { reply: 'once' });
    await until('the form to be closed', () => person.openForms === 0);
    fakes.a.state.finish(sessionID, 'after');
    expect(await turn).toMatchObject({
      outcome: 'completed',
      text: 'before, after',
      settled: expect.stringMatching(/^settled elsewhere/) as string,
    });
    expect(replyCount(fakes.a)).toBe(0);
  });

  test('closes the form of a request whose turn is aborted, and reports the abort', async () => {
    const { person, turn, sessionID } = await sendUntilRequest();
    await until('the person to be asked', () => person.openForms === 1);
    // The request stays listed, as in the real opencode.
    fakes.a.state.abort(sessionID);
    const data = await turn;
    expect([data.outcome, data.settled, person.openForms, replyCount(fakes.a)]).toEqual(['aborted', undefined, 0, 0]);
  });

  test('settles nothing if its call is cancelled while a form is open', async () => {
    const caller = new AbortController();
    const { person, turn } = await sendUntilRequest({ signal: caller.signal });
    await until('the person to be asked', () => person.openForms === 1);
    caller.abort();
    await turn;
    expect([person.openForms, replyCount(fakes.a)]).toEqual([0, 0]);
  });
});

test('a decision that arrives after the deadline of the call is not sent, and the message stays in the journal', async () => {
  const clock = new ManualClock();
  const runtime = runtimeFor({}, clock);
  const askPerson: Call['askPerson'] = async () => {
    await clock.advance(CALL_MS);
    return ONCE;
  };
  const input = { instance: 'a', message: 'x', request_id: 'r' };
  const limit = { deadlineMs: clock.monotonic() + CALL_MS, askPerson };
  const turn = send(runtime, input, call(new Person(), limit));
  await stopAtRequest(fakes.a);
  expect((await turn).data).toMatchObject({
    outcome: 'waiting',
    reason: expect.stringMatching(/ran out, and nothing was answered\. Settle it with respond/) as string,
  });
  expect(replyCount(fakes.a)).toBe(0);
  expect(await readdir(requestsFolder())).toHaveLength(1);
});

test('an async send shows no form', async () => {
  const person = new Person();
  const { state } = fakes.a;
  const begin = state.begin.bind(state);
  // The request comes before any other event of the turn.
  state.begin = (sessionID, ...prompt) => {
    state.addPermission({ sessionID });
    begin(sessionID, ...prompt);
  };
  const { id: session_id } = fakes.a.addSession();
  const input = { instance: 'a', session_id, message: 'x', async: true };
  expect((await send(runtimeFor(), input, call(person))).data).toMatchObject({ outcome: 'waiting' });
  expect(person.forms).toEqual([]);
});

describe('wait for two agents with a request each', () => {
  const startBoth = (): readonly [string, string] => {
    const [one, other] = [fakes.a, fakes.b].map((fake) => {
      const { id: sessionID } = fake.addSession();
      fake.state.begin(sessionID, 'x', {});
      fake.addPermission({ sessionID });
      return sessionID;
    });
    return [one ?? '', other ?? ''];
  };

  test('shows one form at a time', async () => {
    const [one, other] = startBoth();
    const person = new Person();
    const turns = wait(runtimeFor(), { instances: ['a', 'b'], for: 'all' }, call(person));
    await person.answerNext(ONCE);
    await person.answerNext(ONCE);
    await Promise.all([untilSettled(fakes.a), untilSettled(fakes.b)]);
    fakes.a.state.finish(one, 'a is done');
    fakes.b.state.finish(other, 'b is done');
    expect((await turns).data).toMatchObject({ outcome: '2 completed' });
    expect([person.forms.length, person.maxOpen]).toEqual([2, 1]);
  });

  test('skips a request that was settled before its form was shown', async () => {
    const [one, other] = startBoth();
    const person = new Person();
    const turns = wait(runtimeFor(), { instances: ['a', 'b'], for: 'all' }, call(person));
    await until('the person to be asked', () => person.openForms === 1);
    const [first, second] = person.forms[0]?.message.includes(' on b ') ? [fakes.b, fakes.a] : [fakes.a, fakes.b];
    second.state.permissions.clear();
    await person.answerNext(ONCE);
    await untilSettled(first);
    fakes.a.state.finish(one, 'a is done');
    fakes.b.state.finish(other, 'b is done');
    expect((await turns).data).toMatchObject({ outcome: '2 completed' });
    expect(person.forms).toHaveLength(1);
  });

  test('returns when the first turn is done, and closes the form of the other', async () => {
    startBoth();
    fakes.b.state.permissions.clear();
    const person = new Person();
    const turns = wait(runtimeFor(), { instances: ['a', 'b'], for: 'any' }, call(person));
    await until('the person to be asked', () => person.openForms === 1);
    fakes.b.state.finish([...fakes.b.state.statuses.keys()][0] ?? '', 'b is done');
    const { data } = await turns;
    expect(data.turns).toMatchObject([
      { instance: 'a', outcome: 'waiting', next: expect.stringContaining('Settle it with respond') as string },
      { instance: 'b', outcome: 'completed', text: 'b is done' },
    ]);
    expect(data.turns?.[0]?.reason).toBeUndefined();
    expect([person.openForms, replyCount(fakes.a)]).toEqual([0, 0]);
  });
});
