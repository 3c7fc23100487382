import { RequestError } from '../../http/request-error.ts';
import { CallOver } from '../../turns/call-limit.ts';
import { OperationError, quoteName } from '../answer.ts';

/**
 * Does `work`; where the call was over, or a request failed, before its effect, the error says so.
 * @param work what may have had its effect is no `RequestError` of it
 * @param undone what the call did not do, such as `nothing was sent`; asked when it has failed
 * @throws {OperationError} in the place of `CallOver` and `RequestError`
 */
export async function tellingUndone<T>(
  instance: string,
  undone: () => string,
  work: () => Promise<T>,
  next = 'Call again if it is still wanted.',
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RequestError)
      throw new OperationError(
        `${quoteName(instance)}: ${error.message}; ${undone()}. Call instances to see how it is, then call again.`,
        { cause: error },
      );
    if (!(error instanceof CallOver)) throw error;
    throw new OperationError(`${quoteName(instance)}: ${error.message}, and ${undone()}. ${next}`, { cause: error });
  }
}
