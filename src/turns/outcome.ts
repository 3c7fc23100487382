import type { WaitingRequest } from '../opencode/waiting.ts';

export interface WaitingOutcome {
  readonly kind: 'waiting';
  readonly waiting: WaitingRequest;
  /** The request is a sub-agent's. */
  readonly ofSubAgent: boolean;
  /** If the person was asked: why it was not settled, and what to do next. */
  readonly reason?: string;
}

/** The state of a turn when following it ends. */
export type TurnOutcome =
  /** With a reason if its answer was cut, or answers another message too. */
  | { readonly kind: 'completed'; readonly reason?: string }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'aborted' }
  /** Stopped until somebody answers. */
  | WaitingOutcome
  /** The deadline came first; it still runs. */
  | {
      readonly kind: 'running';
      readonly retrying?: { readonly attempt: number; readonly message: string };
      /** Its last sign of life, ms since the epoch by our clock, if that was long ago. */
      readonly stalledSinceMs?: number;
    }
  /** The caller stopped following; it still runs. */
  | { readonly kind: 'cancelled' }
  /** It ended incomplete: its process was restarted or lost it. */
  | { readonly kind: 'interrupted'; readonly reason: string }
  /** Nothing was started: the session works on something else. */
  | { readonly kind: 'busy'; readonly reason: string }
  /** opencode did not take the message. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** It is unknown whether the message arrived, or what became of it. */
  | { readonly kind: 'unknown'; readonly reason: string };

/** A turn's last sign of life. */
export interface SignOfLife {
  /** By the monotonic clock. */
  readonly atMs: number;
  /** See `stageOf`. */
  readonly stage: string;
  /** It was reported as stalled. */
  readonly stalled: boolean;
}

export interface TurnResult {
  readonly outcome: TurnOutcome;
  /** Undefined if nothing was sent. */
  readonly messageId?: string;
  /** The assistant's stored text in this turn; if an earlier call's turn was joined, only the text since then. */
  readonly text: string;
  /** For a joined turn: the text from its beginning. */
  readonly wholeText?: string;
  /** A part is still streaming, and its text is not known yet. */
  readonly textPending: boolean;
  /** Absent if nothing was followed. */
  readonly lastSign?: SignOfLife;
}
