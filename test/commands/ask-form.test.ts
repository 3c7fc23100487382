import { describe, expect, test } from 'vitest';

import { chosenOf, formAsker } from '../../src/commands/terminal/ask-form.ts';
import type { Form, PersonAnswer } from '../../src/operations/runtime.ts';

describe('a choice', () => {
  test.each([
    ['once', 'once'],
    ['ONCE', 'once'],
    ['o', 'once'],
    ['2', 'always'],
    ['rej', 'reject'],
    ['', undefined],
    ['0', undefined],
    ['4', undefined],
    ['yes', undefined],
  ])('%j is %j', (text, choice) => expect(chosenOf(text, ['once', 'always', 'reject'])).toBe(choice));

  test.each([
    ['3', '3'],
    ['1', 'ten'],
    ['t', undefined],
    ['Two', 'Two'],
    ['two', 'two'],
    ['TWO', undefined],
  ])('of labels that look alike %j is %j', (text, choice) =>
    expect(chosenOf(text, ['ten', '3', 'two', 'Two'])).toBe(choice),
  );
});

const LIMIT = { timeoutMs: 60_000, signal: new AbortController().signal };

async function ask(form: Form, ...lines: (string | undefined)[]): Promise<{ answer: PersonAnswer; left: number }> {
  const answer = await formAsker(
    async () => lines.shift(),
    () => {},
  )(form, LIMIT);
  return { answer, left: lines.length };
}

const PERMISSION: Form = {
  id: 'per_1',
  about: 'a permission',
  message: 'ls',
  fields: { decision: { title: 'Allow it?', choices: ['once', 'reject'] }, feedback: { title: 'Why' } },
  required: ['decision'],
};

test('what goes with a no is asked only then, and what is mistyped again', async () => {
  expect(await ask(PERMISSION, 'maybe', '', 'once', 'unasked')).toEqual({
    answer: { kind: 'accepted', fields: { decision: 'once' } },
    left: 1,
  });
  expect((await ask(PERMISSION, 'reject', 'not \u001b[31mhere')).answer).toEqual({
    kind: 'accepted',
    fields: { decision: 'reject', feedback: 'not here' },
  });
  expect((await ask(PERMISSION, 'reject', '')).answer).toEqual({
    kind: 'accepted',
    fields: { decision: 'reject', feedback: '' },
  });
});

test('Ctrl-C, Ctrl-D and nothing but mistypes decide nothing', async () => {
  expect((await ask(PERMISSION, undefined)).answer).toEqual({ kind: 'dismissed' });
  expect((await ask(PERMISSION, 'reject', undefined)).answer).toEqual({ kind: 'dismissed' });
  expect((await ask(PERMISSION, ...Array.from({ length: 50 }, () => 'x'))).answer).toEqual({ kind: 'dismissed' });
});

test('of a list an empty line is the end, once there is something in it', async () => {
  const form: Form = {
    id: 'per_1',
    about: 'a permission',
    message: '?',
    fields: { a: { title: 'Which', isList: true } },
    required: ['a'],
  };
  expect(await ask(form, '', 'Red', 'Blue', '', 'unasked')).toEqual({
    answer: { kind: 'accepted', fields: { a: 'Red\nBlue' } },
    left: 1,
  });
});
