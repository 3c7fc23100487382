import { singleLine } from '../../base/plain-text.ts';
import { inMarks } from '../../opencode/waiting.ts';
import type { Question } from '../../opencode/schema.ts';
import { OperationError } from '../answer.ts';

type Asked = Question['questions'][number];

const MAX_ANSWER_CHARS = 10_000;
const MAX_OFFERED_CHARS = 500;

/**
 * The answers, a list for each question, with labels as offered: they may come in another case. Other words are an answer too.
 * @throws {OperationError} it is unclear how they fit the questions
 */
export function chosenAnswers(
  questions: readonly Asked[],
  given: readonly (readonly string[])[],
): readonly (readonly string[])[] {
  const answers = isFlat(questions, given) ? [given.flat()] : given;
  if (answers.length !== questions.length) {
    throw new OperationError(
      `answers needs one list for each of the ${questions.length} questions, such as [["Red"]]; it has ${answers.length}. Nothing was answered.`,
    );
  }
  const empty = answers.findIndex(
    (labels, index) =>
      (labels.length === 0 && questions[index]?.optional !== true) || labels.some((label) => label.trim() === ''),
  );
  if (empty !== -1) throw new OperationError(`answers[${empty}] is empty. Nothing was answered.`);
  if (answers.flat().join('').length > MAX_ANSWER_CHARS)
    throw new OperationError(`answers are longer than ${MAX_ANSWER_CHARS} characters. Nothing was answered.`);
  const many = answers.findIndex((labels, index) => labels.length > 1 && questions[index]?.multiple !== true);
  if (many !== -1) throw new OperationError(`Question ${many + 1} takes one answer. Nothing was answered.`);
  return questions.map(({ options }, index) => {
    const labels = options.map(({ label }) => label);
    return (answers[index] ?? []).map((answer) => labelOf(answer, labels));
  });
}

/** `[["Red"], ["Blue"]]` for a single question that takes several answers. */
function isFlat(questions: readonly Asked[], given: readonly (readonly string[])[]): boolean {
  return questions.length === 1 && questions[0]?.multiple === true && given.every(({ length }) => length === 1);
}

function labelOf(answer: string, labels: readonly string[]): string {
  if (labels.includes(answer)) return answer;
  const alike = labels.filter((label) => folded(label) === folded(answer));
  if (alike[0] !== undefined && alike.length === 1) return alike[0];
  // Models count from 0 or from 1.
  const isPosition = labels.length > 0 && /^\s*\d+\s*$/.test(answer) && Number(answer) <= labels.length;
  if (isPosition && !labels.some((label) => /^\s*\d/.test(label))) {
    const offered = inMarks(singleLine(labels.join(' | '), MAX_OFFERED_CHARS));
    throw new OperationError(
      `${JSON.stringify(answer.trim())} is none of ${offered}, and positions are not counted; give the label, or other words. Nothing was answered.`,
    );
  }
  return answer;
}

function folded(text: string): string {
  return text.trim().toLowerCase();
}
