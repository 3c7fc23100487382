import { quoteName } from '../base/plain-text.ts';
import type { Note } from '../model/candidate.ts';
import { type EndpointRecord, MAX_MISSED_ROUNDS } from './endpoint-record.ts';

/** Names in one note. */
const MAX_NAMED = 10;

const MAX_MERGE_NOTES = 50;

/** The notes of a snapshot about what it does not list. */
export function snapshotNotes(
  merged: readonly Note[],
  unlisted: readonly EndpointRecord[],
  unprobed: number,
  crowded: ReadonlyMap<string, EndpointRecord>,
): readonly Note[] {
  return [...boundedNotes(merged), ...unlistedNotes(unlisted), ...unprobedNotes(unprobed), ...crowdedNotes(crowded)];
}

function boundedNotes(notes: readonly Note[]): readonly Note[] {
  const more = notes.length - MAX_MERGE_NOTES;
  if (more <= 0) return notes;
  return [
    ...notes.slice(0, MAX_MERGE_NOTES),
    { subject: 'registrations', reason: `${more} more contradict another one and are left out` },
  ];
}

function unlistedNotes(unlisted: readonly EndpointRecord[]): readonly Note[] {
  if (unlisted.length === 0) return [];
  const names = unlisted.slice(0, MAX_NAMED).map(({ candidate, id }) => quoteName(candidate.claims.name ?? id));
  const more = unlisted.length > MAX_NAMED ? ` and ${unlisted.length - MAX_NAMED} more` : '';
  const reason = `not listed after ${MAX_MISSED_ROUNDS} rounds without an answer; a refresh checks them all again: ${names.join(', ')}${more}`;
  return [{ subject: registrations(unlisted.length), reason }];
}

function unprobedNotes(count: number): readonly Note[] {
  if (count === 0) return [];
  return [{ subject: registrations(count, 'new '), reason: 'not listed yet: the first check is still running' }];
}

function crowdedNotes(crowded: ReadonlyMap<string, EndpointRecord>): readonly Note[] {
  return [...crowded].map(([name, { unaskedDirectories: count, lastHealthy }]) => ({
    subject: quoteName(name),
    reason:
      lastHealthy?.dialect === 'opencode-1'
        ? `${directories(count)} used in the last minutes, and not checked; list its sessions to see the latest`
        : `${directories(count)} not listed: not used today, or too many; list its sessions to see them`,
  }));
}

function directories(count: number): string {
  return count === 1 ? '1 more directory' : `${count} more directories`;
}

function registrations(count: number, kind = ''): string {
  return `${count} ${kind}${count === 1 ? 'registration' : 'registrations'}`;
}
