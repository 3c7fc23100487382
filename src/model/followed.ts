/** How far this user's calls on this machine followed a session. Their caller knows what they saw, and needs no notification. */
export interface Followed {
  /** Ms since the epoch; `Infinity` where one follows it now. */
  readonly untilMs: number;
  /** The last of them saw its turn end, and not only that it waits for somebody. */
  readonly sawEnd: boolean;
}
