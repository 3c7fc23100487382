/** What a script reads of a command; `opencode-mcp help` lists them. 2 is a `SettingsError`. */
export const EXIT = {
  done: 0,
  /** Or aborted, or not found. */
  failed: 1,
  /** It waits for a permission or an answer. */
  waiting: 3,
  /** It is busy or cannot be reached: the same message may be sent again. */
  notSent: 4,
  /** When the time was up, or somebody stopped following. As `timeout` of coreutils has it. */
  running: 124,
} as const;
export type Exit = (typeof EXIT)[keyof typeof EXIT];

/** Of a turn, by its `outcome`. */
export function exitOf(outcome: string): Exit {
  switch (outcome) {
    case 'completed':
    case 'idle':
      return EXIT.done;
    case 'waiting':
      return EXIT.waiting;
    case 'running':
    case 'retrying':
    case 'stalled':
      return EXIT.running;
    default:
      return EXIT.failed;
  }
}
