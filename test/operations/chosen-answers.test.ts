import { describe, expect, test } from 'vitest';

import { chosenAnswers } from '../../src/operations/respond/chosen-answers.ts';

const question = (multiple: boolean, ...labels: readonly string[]) => ({
  question: '?',
  options: labels.map((label) => ({ label })),
  multiple,
});
const singleChoice = [question(false, 'Red', 'Deep Blue')];
const multipleChoice = [question(true, 'Red', 'Blue', 'Green')];
const twoQuestions = [question(false, 'Red', 'Blue'), question(true, 'Big', 'Small')];

describe('chosen answers', () => {
  test.each([
    ['a label in another case', singleChoice, [[' deep blue ']], [['Deep Blue']]],
    ['text that is not a label', singleChoice, [['Blue: the colour of the sky']], [['Blue: the colour of the sky']]],
    ['text that matches two labels except for case', [question(false, 'on', 'ON')], [['On']], [['On']]],
    ['the exact one of two labels that differ in case', [question(false, 'on', 'ON')], [['ON']], [['ON']]],
    ['a number that is not one of the numeric labels', [question(false, '1', '2', '4')], [['3']], [['3']]],
    ['a number that is not a position', singleChoice, [['8080']], [['8080']]],
    ['a number without options', [question(false)], [['3']], [['3']]],
    ['a flat list of several labels', multipleChoice, [['red'], ['Green']], [['Red', 'Green']]],
    ['one label of a multiple choice', multipleChoice, [['Red']], [['Red']]],
    ['a list for each question', twoQuestions, [['blue'], ['Big', 'small']], [['Blue'], ['Big', 'Small']]],
  ])('%s is accepted', (_, questions, answers, expected) => {
    expect(chosenAnswers(questions, answers)).toEqual(expected);
  });

  test.each([
    ['a position', singleChoice, [['1']], /"1" is none of «Red \| Deep Blue»/],
    ['the position 0', twoQuestions, [['Red'], ['0']], /"0" is none of «Big \| Small»/],
    ['a flat list for a single choice', singleChoice, [['Red'], ['Deep Blue']], /each of the 1 questions.* it has 2/],
    ['one list for two questions', twoQuestions, [['Red', 'Big']], /each of the 2 questions.* it has 1/],
    ['a second answer to a single choice', twoQuestions, [['Red', 'Blue'], ['Big']], /Question 1 takes one answer/],
    ['an empty answer', twoQuestions, [['Red'], []], /answers\[1\] is empty/],
    ['an answer that is too long', singleChoice, [['x'.repeat(10_001)]], /longer than 10000/],
  ])('%s is refused', (_, questions, answers, problem) => {
    expect(() => chosenAnswers(questions, answers)).toThrow(problem);
    expect(() => chosenAnswers(questions, answers)).toThrow(/Nothing was answered\.$/);
  });
});
