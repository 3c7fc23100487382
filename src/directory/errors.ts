/** The message lists what there is, bounded, and says what to call next. */
export class QueryError extends Error {
  override readonly name = 'QueryError';
}

/** The message says what was tried, on what, and what to do. */
export class UnreachableError extends Error {
  override readonly name = 'UnreachableError';
}
