/** The part of `instances` and `list_instances` that the bench reads. */
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

/** The most rows per call. */
export const MOST_ROWS = 500;

/** Complete rows of instances that answered in this call. */
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
