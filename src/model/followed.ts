/** Until when this user's own calls on this machine followed a session: what they saw needs no notification. */
export interface Followed {
  /** Ms since the epoch; `Infinity` while a call is following it. */
  readonly untilMs: number;
  /** The last call saw the turn end, not just stop for an answer. */
  readonly sawEnd: boolean;
}
