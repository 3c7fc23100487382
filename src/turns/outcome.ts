import type { WaitingRequest } from '../opencode/waiting.ts';

export interface WaitingOutcome {
  readonly kind: 'waiting';
  readonly waiting: WaitingRequest;
  /** The request is a sub-agent's. */
  readonly ofSubAgent: boolean;
  /** Why it was not settled where the person was asked, and what to do next. */
  readonly reason?: string;
}

/** How a turn stands when following it ends. */
export type TurnOutcome =
  /** With a reason where that is not plainly so: its answer was cut, or is to another message too. */
  | { readonly kind: 'completed'; readonly reason?: string }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'aborted' }
  /** Stopped until somebody answers. */
  | WaitingOutcome
  /** The deadline came first; it still runs. */
  | {
      readonly kind: 'running';
      readonly retrying?: { readonly attempt: number; readonly message: string };
      /** Time of its last sign of life, ms since the epoch of our clock, if that is long ago. */
      readonly stalledSinceMs?: number;
    }
  /** The caller stopped following; it still runs. */
  | { readonly kind: 'cancelled' }
  /** It ended without being completed: its process was restarted or lost it. */
  | { readonly kind: 'interrupted'; readonly reason: string }
  /** Nothing was started: the session works on something else. */
  | { readonly kind: 'busy'; readonly reason: string }
  /** opencode did not take the message. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** It is unknown whether the message arrived, or what became of it. */
  | { readonly kind: 'unknown'; readonly reason: string };

/** Time of a turn's last sign of life, by the monotonic clock, and how far it had come. */
export interface Heard {
  readonly atMs: number;
  readonly stage: string;
  /** It was silent for so long that it was reported as stalled. */
  readonly stalled: boolean;
}

export interface TurnResult {
  readonly outcome: TurnOutcome;
  /** Undefined where nothing was sent. */
  readonly messageId?: string;
  /** What the assistant said in this turn, as stored; of a turn that was joined, what it said since. */
  readonly text: string;
  /** Of a turn that was joined: from its beginning. */
  readonly wholeText?: string;
  /** A part is still streaming and its text is not known yet. */
  readonly textPending: boolean;
  /** Absent where nothing was followed. */
  readonly heard?: Heard;
}
