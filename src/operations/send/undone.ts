import { type AdvisedText, capitalized, inWords } from '../../model/advice.ts';
import { RequestError } from '../../http/request-error.ts';
import { CallOver } from '../../turns/call-limit.ts';
import { OperationError, quoteName } from '../answer.ts';

const STILL_WANTED: AdvisedText = ({ again }) => `${capitalized(again)} if it is still wanted.`;

/**
 * Runs `work`; if the call is over or a request fails before any effect, the error says so.
 * @param undone such as `nothing was sent`
 * @param work throws a `RequestError` only if it has had no effect
 * @param next advice if the call is over
 * @throws {OperationError} in place of `CallOver` and `RequestError`
 */
export async function reportUndone<T>(
  instance: string,
  undone: string,
  work: () => Promise<T>,
  next = STILL_WANTED,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const why = whyUndone(instance, error, undone, next);
    throw why === undefined ? error : new OperationError(why, { cause: error });
  }
}

/** The message of an error after which there has certainly been no effect; undefined for other errors. */
export function whyUndone(
  instance: string,
  error: unknown,
  undone: string,
  next = STILL_WANTED,
): AdvisedText | undefined {
  const name = quoteName(instance);
  if (error instanceof RequestError)
    return ({ look, again }) =>
      `${name}: ${error.message}; ${undone}. ${capitalized(look)} to see how it is, then ${again}.`;
  if (error instanceof CallOver) return (words) => `${name}: ${error.message}, and ${undone}. ${inWords(next, words)}`;
  return undefined;
}
