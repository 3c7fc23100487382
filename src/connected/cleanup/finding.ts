import type { RunStateFile } from '../run-state.ts';
import type { RemovalOrder } from '../survey/registry-survey.ts';

export type Action =
  | RemovalOrder
  | { readonly kind: 'state'; readonly file: RunStateFile }
  | { readonly kind: 'tunnel'; readonly file: RunStateFile; readonly pid: number };

/** Something that no running instance seems to need. Text is safe to show. */
export interface Finding {
  readonly where: 'here' | 'relay';
  readonly what: 'registration' | 'claim' | 'password' | 'state file' | 'tunnel';
  readonly subject: string;
  readonly reason: string;
  /** The instance that it belonged to, if known. */
  readonly id?: string;
  /** Absent if the thing is left alone, because it is not provably dead or not this user's. */
  readonly action?: Action;
}
