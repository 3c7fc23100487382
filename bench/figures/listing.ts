/** What `instances` and `list_instances` answer, as far as the bench reads it. */
export interface Listing {
  readonly instances: readonly Row[];
  readonly total: number;
  readonly notes: readonly string[];
}

export interface Row {
  readonly name: string;
  readonly state: string;
  readonly via: string;
  readonly directory?: string;
  readonly session?: object;
  readonly version?: string;
  readonly stale_seconds?: number;
}

/** The most that one call gives. */
export const MOST_ROWS = 500;

/** Rows that answered in this call and tell everything. */
export function completeRows({ instances }: Listing): number {
  return instances.filter(
    ({ state, directory, session, version, stale_seconds }) =>
      state === 'idle' &&
      directory !== undefined &&
      session !== undefined &&
      version !== undefined &&
      stale_seconds === undefined,
  ).length;
}
