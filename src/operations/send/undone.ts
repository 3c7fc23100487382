import { CallOver } from '../../turns/call-limit.ts';
import { OperationError, quoteName } from '../answer.ts';

/**
 * Does `work`; where the call was over before its effect, the error says so.
 * @param undone what the call did not do, such as `nothing was sent`; asked when it is over
 * @throws {OperationError} in the place of `CallOver`
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
    if (!(error instanceof CallOver)) throw error;
    throw new OperationError(`${quoteName(instance)}: ${error.message}, and ${undone()}. ${next}`, { cause: error });
  }
}
