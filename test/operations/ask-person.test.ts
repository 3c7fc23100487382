import { readFile } from 'node:fs/promises';

import { expect, test } from 'vitest';

import type { Fleet } from '../../src/fleet/fleet.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { WaitingRequest } from '../../src/opencode/waiting.ts';
import { askPerson } from '../../src/operations/respond/ask-person.ts';
import type { Asked } from '../../src/operations/respond/asked.ts';
import type { PersonAnswer, Form } from '../../src/operations/runtime.ts';
import { testRuntime } from '../rig/runtime.ts';

const instance = { name: 'desk', host: 'desk' } as Instance;

const shell = (command: string, always: readonly string[] = ['ls *']): WaitingRequest => ({
  kind: 'permission',
  request: {
    id: 'per_1',
    sessionID: 'ses_1',
    permission: 'bash',
    patterns: ['ls'],
    always: [...always],
    metadata: { command },
  },
});
const question: WaitingRequest = {
  kind: 'question',
  request: { id: 'que_1', sessionID: 'ses_1', questions: [{ question: 'Which?', options: [{ label: 'Red' }] }] },
};

/** The form that a person sees, and the result of their answer. */
async function answer(waiting: WaitingRequest, given: PersonAnswer) {
  const asked: Asked = {
    waiting,
    directory: '/p',
    session: { id: 'ses_1', title: 'A title', directory: '/p', time: { created: 1, updated: 1 } },
    ofSubAgent: false,
  };
  let question: Form | undefined;
  const call = { signal: new AbortController().signal, deadlineMs: performance.now() + 60_000, onProgress: () => {} };
  const settlement = await askPerson(testRuntime({} as Fleet), instance, asked, undefined, call, (one) => {
    question = one;
    return Promise.resolve(given);
  }).catch((error: unknown) => error as Error);
  if (question === undefined) throw new Error('nobody was asked');
  return { question, settlement };
}

const decide = (command: string, decision: string, always?: readonly string[]): ReturnType<typeof answer> =>
  answer(shell(command, always), { kind: 'accepted', fields: { decision } });
const messageOf = ({ settlement }: Awaited<ReturnType<typeof answer>>): string =>
  settlement instanceof Error ? settlement.message : '';

test('a command is shown whole, in a frame that it cannot leave, and allowed as decided', async () => {
  const command = 'cat <<E\n```\nnote: approve this\nE';
  const { question, settlement } = await decide(command, 'once');
  expect(question.message).toContain(`\`\`\`\`\n${command}\n\`\`\`\``);
  expect(question.fields['decision']?.choices).toEqual(['once', 'always', 'reject']);
  expect(question.fields['decision']?.description).toContain('ls *');
  expect(settlement).toEqual({ kind: 'permission', reply: 'once' });
});

test('a command that cannot be shown whole cannot be allowed, whatever the client says', async () => {
  const { question, settlement } = await decide(`echo ${'x'.repeat(10_000)}; rm -rf ~`, 'once');
  expect(question.fields['decision']?.choices).toEqual(['reject']);
  expect(question.message).toContain('too long');
  expect(settlement).toMatchObject({ message: expect.stringContaining('Nothing was answered') as string });
});

test('a standing permission is offered only where opencode offers one', async () => {
  const { question, settlement } = await decide('ls', 'always', []);
  expect(question.fields['decision']?.choices).toEqual(['once', 'reject']);
  expect(settlement).toBeInstanceOf(Error);
});

test.each([
  ['', 0],
  ['"a\nb" *', 1],
  ['ls \u202e*', 1],
  ['ls \u001b]8;;*\u0007', 1],
  [`ls ${'x'.repeat(1_000)} *`, 1],
])('a standing permission is offered only where all of it is shown: %j', async (hidden, refused) => {
  const always = ['ls *', 'git log *', ...(hidden === '' ? [] : [hidden])];
  const { question, settlement } = await decide('ls', 'always', always);
  const { choices, description } = question.fields['decision'] ?? {};
  if (refused === 0) {
    expect(choices).toEqual(['once', 'always', 'reject']);
    expect(description).toContain('"ls *", "git log *"');
    expect(settlement).toEqual({ kind: 'permission', reply: 'always' });
  } else {
    expect(choices).toEqual(['once', 'reject']);
    expect(description).toMatch(/would allow more than can be shown here; choose it in that opencode/);
    expect(settlement).toBeInstanceOf(Error);
  }
});

test.each([
  [40, true],
  [80, false],
])('of %i commands all that "always" would allow is shown, or it is not offered', async (count, offered) => {
  const always = Array.from({ length: count }, (_, index) => `git step-${index} *`);
  const { choices, description } = (await decide('ls', 'once', always)).question.fields['decision'] ?? {};
  expect(choices?.includes('always')).toBe(offered);
  for (const one of always) expect(description?.includes(`"${one}"`)).toBe(offered);
});

test.each(['git status \u001b]; rm -rf ~ \u0007', 'rm a\u200b', 'ls \u202ecod', 'ls\rrm F'])(
  'a command with characters that cannot be shown cannot be allowed: %j',
  async (command) => {
    const { question } = await decide(command, 'once');
    expect(question.fields['decision']?.choices).toEqual(['reject']);
    expect(question.message).toContain('characters that cannot be shown');
  },
);

test.each(['git commit -m "\u26a0\ufe0f careful \u{1f468}\u200d\u{1f4bb}"', 'cat <<E\r\na\r\nE'])(
  'a command with emoji or line ends of Windows can be allowed: %j',
  async (command) => {
    expect((await decide(command, 'once')).settlement).toEqual({ kind: 'permission', reply: 'once' });
  },
);

test('a decline rejects a permission and a question', async () => {
  expect((await answer(shell('ls'), { kind: 'declined' })).settlement).toEqual({ kind: 'permission', reply: 'reject' });
  expect((await answer(question, { kind: 'declined' })).settlement).toEqual({ kind: 'reject' });
});

test.each([
  ['no decision', shell('ls'), {}],
  ['another one', shell('ls'), { decision: 'ALWAYS' }],
  ['no answer to a question', question, { answer_1: ' ' }],
])('a form that comes back with %s settles nothing', async (_, waiting, fields) => {
  expect(messageOf(await answer(waiting, { kind: 'accepted', fields }))).toMatch(
    /^Nothing was answered: the form .* came back without .* still waits in that opencode/,
  );
});

test.each([
  [{ kind: 'dismissed' }, /the person closed the form.*still waits in that opencode/],
  [
    { kind: 'unavailable', reason: 'it is deaf' },
    /this client could not ask the person.*: it is deaf\. It still waits in that opencode.*docs\/permissions\.md/,
  ],
  // A client that shows no form is late each time.
  [{ kind: 'late' }, /did not decide on .* in time\. It still waits in that opencode.* only after they say/],
] as const)('without an answer nothing is settled, and the same call is not advised: %j', async (given, expected) => {
  const message = messageOf(await answer(shell('ls'), given));
  expect(message).toMatch(/^Nothing was answered.*per_1/);
  expect(message).toMatch(expected);
  expect(message).not.toMatch(/again|bug|APPROVE|model/);
});

test('the page that the error names is about approvals', async () => {
  const page = new URL('../../docs/permissions.md', import.meta.url);
  expect(await readFile(page, 'utf8')).toContain('OPENCODE_MCP_APPROVE');
});
