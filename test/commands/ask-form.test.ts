import { expect, test } from 'vitest';

import { chosenOf, formAsker } from '../../src/commands/terminal/ask-form.ts';
import type { Form } from '../../src/operations/runtime.ts';

test.each([
  ['once', ['once', 'ONCE', 'o']],
  ['always', ['2']],
  ['reject', ['rej']],
  [undefined, ['', '0', '4', 'yes']],
])('selects the choice %s by %j', (choice, texts) => {
  for (const text of texts) expect(chosenOf(text, ['once', 'always', 'reject']), text).toBe(choice);
});

test.each([
  ['3', '3'],
  ['1', 'ten'],
  ['t', undefined],
  ['Two', 'Two'],
  ['two', 'two'],
  ['TWO', undefined],
])('among similar choices, %j selects %j', (text, choice) => {
  expect(chosenOf(text, ['ten', '3', 'two', 'Two'])).toBe(choice);
});

/** Answers the form with these lines; undefined is Ctrl-D. */
async function ask(form: Form, ...lines: (string | undefined)[]) {
  const limit = { timeoutMs: 60_000, signal: new AbortController().signal };
  const answerForm = formAsker(
    async () => lines.shift(),
    () => {},
  );
  return { answer: await answerForm(form, limit), left: lines.length };
}

const PERMISSION: Form = {
  id: 'per_1',
  about: 'a permission',
  message: 'ls',
  fields: { decision: { title: 'Allow it?', choices: ['once', 'reject'] }, feedback: { title: 'Why' } },
  required: ['decision'],
};

test('asks for the reason only after a rejection, and asks again after a mistyped choice', async () => {
  expect(await ask(PERMISSION, 'maybe', '', 'once', 'unread')).toEqual({
    answer: { kind: 'accepted', fields: { decision: 'once' } },
    left: 1,
  });
  for (const [reason, feedback] of [
    ['not \u001b[31mhere', 'not here'],
    ['', ''],
  ]) {
    const { answer } = await ask(PERMISSION, 'reject', reason);
    expect(answer).toEqual({ kind: 'accepted', fields: { decision: 'reject', feedback } });
  }
});

test.each([
  ['Ctrl-D', [undefined]],
  ['Ctrl-D after a choice', ['reject', undefined]],
  ['repeated mistyping', Array.from({ length: 50 }, () => 'x')],
])('%s dismisses the form', async (_, lines) => {
  expect((await ask(PERMISSION, ...lines)).answer).toEqual({ kind: 'dismissed' });
});

test('an empty line ends a list that has entries', async () => {
  const form: Form = { ...PERMISSION, fields: { a: { title: 'Which', isList: true } }, required: ['a'] };
  expect(await ask(form, '', 'Red', 'Blue', '', 'unread')).toEqual({
    answer: { kind: 'accepted', fields: { a: 'Red\nBlue' } },
    left: 1,
  });
});
