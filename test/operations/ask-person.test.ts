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

const shellPermission = (command: string, always: readonly string[] = ['ls *']): WaitingRequest => ({
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
async function answerForm(waiting: WaitingRequest, personAnswer: PersonAnswer) {
  const request: Asked = {
    waiting,
    directory: '/p',
    session: { id: 'ses_1', title: 'A title', directory: '/p', time: { created: 1, updated: 1 } },
    ofSubAgent: false,
  };
  let shownForm: Form | undefined;
  const call = { signal: new AbortController().signal, deadlineMs: performance.now() + 60_000, onProgress: () => {} };
  const settlement = await askPerson(testRuntime({} as Fleet), instance, request, undefined, call, (form) => {
    shownForm = form;
    return Promise.resolve(personAnswer);
  }).catch((error: unknown) => error as Error);
  if (shownForm === undefined) throw new Error('Expected a form, got none');
  return { question: shownForm, settlement };
}

const decide = (command: string, decision: string, always?: readonly string[]): ReturnType<typeof answerForm> =>
  answerForm(shellPermission(command, always), { kind: 'accepted', fields: { decision } });
const messageOf = ({ settlement }: Awaited<ReturnType<typeof answerForm>>): string =>
  settlement instanceof Error ? settlement.message : '';

test('a command is shown whole in a fence that it cannot close, and is allowed as the person decides', async () => {
  const command = 'cat <<E\n```\nnote: approve this\nE';
  const { question, settlement } = await decide(command, 'once');
  expect(question.message).toContain(`\`\`\`\`\n${command}\n\`\`\`\``);
  expect(question.fields['decision']?.choices).toEqual(['once', 'always', 'reject']);
  expect(question.fields['decision']?.description).toContain('ls *');
  expect(settlement).toEqual({ kind: 'permission', reply: 'once' });
});

test('a command that is too long to show whole cannot be allowed, even if the client answers so', async () => {
  const { question, settlement } = await decide(`echo ${'x'.repeat(10_000)}; rm -rf ~`, 'once');
  expect(question.fields['decision']?.choices).toEqual(['reject']);
  expect(question.message).toContain('too long');
  expect(settlement).toMatchObject({ message: expect.stringContaining('Nothing was answered') as string });
});

test('"always" is offered only if opencode offers it', async () => {
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
])('"always" is offered only if all its patterns can be shown: %j', async (hidden, refused) => {
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
])('"always" for %i patterns is offered with all of them shown: %s', async (count, offered) => {
  const always = Array.from({ length: count }, (_, index) => `git step-${index} *`);
  const { choices, description } = (await decide('ls', 'once', always)).question.fields['decision'] ?? {};
  expect(choices?.includes('always')).toBe(offered);
  for (const pattern of always) expect(description?.includes(`"${pattern}"`)).toBe(offered);
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
  'a command with emoji or Windows line ends can be allowed: %j',
  async (command) => {
    expect((await decide(command, 'once')).settlement).toEqual({ kind: 'permission', reply: 'once' });
  },
);

test('declining the form rejects a permission or a question', async () => {
  expect((await answerForm(shellPermission('ls'), { kind: 'declined' })).settlement).toEqual({
    kind: 'permission',
    reply: 'reject',
  });
  expect((await answerForm(question, { kind: 'declined' })).settlement).toEqual({ kind: 'reject' });
});

test.each([
  ['no decision', shellPermission('ls'), {}],
  ['an unknown decision', shellPermission('ls'), { decision: 'ALWAYS' }],
  ['no answer to a question', question, { answer_1: ' ' }],
])('a form that comes back with %s settles nothing', async (_, waiting, fields) => {
  expect(messageOf(await answerForm(waiting, { kind: 'accepted', fields }))).toMatch(
    /^Nothing was answered: the form .* came back without .* still waits in that opencode/,
  );
});

test.each([
  [{ kind: 'dismissed' }, /the person closed the form.*still waits in that opencode/],
  [
    { kind: 'unavailable', reason: 'it has no forms' },
    /this client could not ask the person.*: it has no forms\. It still waits in that opencode.*docs\/permissions\.md/,
  ],
  // A client that shows no form times out every time.
  [{ kind: 'late' }, /did not decide on .* in time\. It still waits in that opencode.* only after they say/],
] as const)(
  'an unanswered form settles nothing, and the error does not advise the same call: %j',
  async (personAnswer, expected) => {
    const message = messageOf(await answerForm(shellPermission('ls'), personAnswer));
    expect(message).toMatch(/^Nothing was answered.*per_1/);
    expect(message).toMatch(expected);
    expect(message).not.toMatch(/again|bug|APPROVE|model/);
  },
);

test('the page that the error names describes OPENCODE_MCP_APPROVE', async () => {
  const page = new URL('../../docs/permissions.md', import.meta.url);
  expect(await readFile(page, 'utf8')).toContain('OPENCODE_MCP_APPROVE');
});
