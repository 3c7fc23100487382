/** Why a configuration file cannot be changed. */
export class EditError extends Error {
  override readonly name = 'EditError';
}

/** A syntax error. `line` counts from 1. */
export function brokenAt(line: number, reason: string): EditError {
  return new EditError(`line ${line}: ${reason}; correct that first`);
}
