import { capitalized, messageIn, TOOL_WORDS, type ReaderWords } from '../../model/advice.ts';
import { type Logger, reportMisfit } from '../../base/log.ts';
import { sentence, singleLine } from '../../base/plain-text.ts';

/** Errors whose message is written for the caller. */
const EXPECTED = new Set(['OperationError', 'QueryError', 'UnreachableError', 'NotPossibleError']);
const MAX_CHARS = 4_000;

/** The text that a failed call shows: what was tried, on what, and which call to make next. */
export function toolError(tool: string, error: unknown, logger: Logger, words: ReaderWords = TOOL_WORDS): string {
  if (!(error instanceof Error)) return `${tool} failed: ${singleLine(String(error), MAX_CHARS)}`;
  if (EXPECTED.has(error.name)) return sentence(messageIn(words, error), MAX_CHARS);
  if (error.name === 'RequestError') {
    if ('kind' in error && error.kind === 'malformed') reportMisfit(error.message, logger);
    return `${tool} failed: ${sentence(error.message, MAX_CHARS)}. ${capitalized(words.look)} to see how the instance is, then try again.`;
  }
  logger.log('error', `${tool}: ${error.stack ?? error.message}`);
  return `${tool} failed inside opencode-mcp: ${sentence(error.message, MAX_CHARS)}. Its log has more; this is a bug worth reporting.`;
}
