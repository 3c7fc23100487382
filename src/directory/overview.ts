import type { Activity, Overview, OverviewPart, SessionSummary } from './instance.ts';

/** What one probe learnt of an instance's doings; a part that is absent was not learnt. */
export interface OverviewParts {
  readonly status?: Activity;
  readonly permissions?: number;
  readonly questions?: number;
  /** Null: there is none. */
  readonly session?: SessionSummary | null;
}

/** The parts known of one endpoint, and the overview they make. */
export interface KnownOverview {
  readonly parts: OverviewParts;
  readonly overview: Overview;
}

/**
 * Puts what was learnt over what was known. A part that was asked for and not answered keeps its last value and is
 * named in `stale`. Where nothing at all was learnt, the known overview stays as it is, with its age.
 */
export function updateOverview(
  known: KnownOverview | undefined,
  learnt: OverviewParts,
  missing: readonly OverviewPart[],
  nowMs: number,
): KnownOverview | undefined {
  if (Object.keys(learnt).length === 0) return known;
  const parts = { ...known?.parts, ...learnt };
  return {
    parts,
    overview: {
      activity: parts.status ?? { kind: 'unknown' },
      ...(parts.session ? { session: parts.session } : {}),
      pending: (parts.permissions ?? 0) + (parts.questions ?? 0),
      askedAtMs: nowMs,
      ...(missing.length > 0 ? { stale: missing } : {}),
    },
  };
}
