/** Why a configuration file is left as it is. */
export class EditError extends Error {
  override readonly name = 'EditError';
}

/** Where the syntax breaks. `line` counts from 1. */
export function brokenAt(line: number, reason: string): EditError {
  return new EditError(`line ${line}: ${reason}; mend that first`);
}
