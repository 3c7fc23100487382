/** How far calls of this user on this machine followed a session: whoever made them learns what they saw. */
export interface Followed {
  /** Ms since the epoch; `Infinity` where one follows it now. */
  readonly untilMs: number;
  /** The last of them saw its turn end, and not only that it waits for somebody. */
  readonly sawEnd: boolean;
}
