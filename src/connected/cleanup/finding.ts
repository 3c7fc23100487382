import type { RunStateFile } from '../run-state.ts';
import type { RemovalOrder } from '../survey/registry-survey.ts';

/** What a removal needs; each is looked at again before. */
export type Action =
  | RemovalOrder
  | { readonly kind: 'state'; readonly file: RunStateFile }
  | { readonly kind: 'tunnel'; readonly file: RunStateFile; readonly pid: number };

/** Something that no living instance seems to need. Text is safe to show. */
export interface Finding {
  readonly where: 'here' | 'relay';
  readonly what: 'registration' | 'claim' | 'password' | 'state file' | 'tunnel';
  /** A path, or a process. */
  readonly subject: string;
  readonly reason: string;
  /** The instance it belonged to, where that is known. */
  readonly id?: string;
  /** Absent where it is not provably dead, or not ours: it is left. */
  readonly action?: Action;
}
