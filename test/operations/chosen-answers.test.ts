import { describe, expect, test } from 'vitest';

import { chosenAnswers } from '../../src/operations/respond/chosen-answers.ts';

const question = (multiple: boolean, ...labels: readonly string[]) => ({
  question: '?',
  options: labels.map((label) => ({ label })),
  multiple,
});
const one = [question(false, 'Red', 'Deep Blue')];
const several = [question(true, 'Red', 'Blue', 'Green')];
const two = [question(false, 'Red', 'Blue'), question(true, 'Big', 'Small')];

describe('chosen answers', () => {
  test.each([
    ['another case', one, [[' deep blue ']], [['Deep Blue']]],
    ['other words', one, [['Blue: the colour of the sky']], [['Blue: the colour of the sky']]],
    ['two labels that differ in case', [question(false, 'on', 'ON')], [['On']], [['On']]],
    ['the exact one of them', [question(false, 'on', 'ON')], [['ON']], [['ON']]],
    ['a number beside numbers', [question(false, '1', '2', '4')], [['3']], [['3']]],
    ['a number that is no position', one, [['8080']], [['8080']]],
    ['a number without options', [question(false)], [['3']], [['3']]],
    ['a flat list of several', several, [['red'], ['Green']], [['Red', 'Green']]],
    ['one of several', several, [['Red']], [['Red']]],
    ['a list for each', two, [['blue'], ['Big', 'small']], [['Blue'], ['Big', 'Small']]],
  ])('%s', (_, questions, given, expected) => {
    expect(chosenAnswers(questions, given)).toEqual(expected);
  });

  test.each([
    ['a position', one, [['1']], /"1" is none of «Red \| Deep Blue»/],
    ['a position from 0', two, [['Red'], ['0']], /"0" is none of «Big \| Small»/],
    ['a flat list where one may be chosen', one, [['Red'], ['Deep Blue']], /each of the 1 questions.* it has 2/],
    ['one list for two questions', two, [['Red', 'Big']], /each of the 2 questions.* it has 1/],
    ['too many', two, [['Red', 'Blue'], ['Big']], /Question 1 takes one answer/],
    ['nothing', two, [['Red'], []], /answers\[1\] is empty/],
    ['too much', one, [['x'.repeat(10_001)]], /longer than 10000/],
  ])('%s is refused', (_, questions, given, problem) => {
    expect(() => chosenAnswers(questions, given)).toThrow(problem);
    expect(() => chosenAnswers(questions, given)).toThrow(/Nothing was answered\.$/);
  });
});
