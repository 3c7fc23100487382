import type { ReaderWords } from '../model/advice.ts';
import { quoteName, quoteShort, singleLine } from '../base/plain-text.ts';
import { QueryError } from './contract.ts';
import type { GoneInstance, Instance } from '../model/instance.ts';

/** Names in one error: enough to choose from, few enough to read. */
const MAX_LISTED = 20;
const MAX_QUERY_CHARS = 100;

/**
 * The one instance that `query` means: by exact name, then by a case-insensitive part of exactly one name. It never chooses between
 * two; a query that fits a gone instance is an error, never another machine.
 * @throws {QueryError} unknown, ambiguous, gone
 */
export function findInstance(
  query: string,
  instances: readonly Instance[],
  gone: readonly GoneInstance[],
  nowMs: number,
): Instance {
  const wanted = query.trim();
  if (wanted === '') throw new QueryError((words) => `No instance was named. ${listing(instances, words)}`);
  const exact = instances.find((instance) => namesOf(instance).includes(wanted));
  if (exact !== undefined) return exact;
  const lost = gone.find(({ name }) => name === wanted);
  if (lost !== undefined)
    throw new QueryError((words) => `${describeGone(lost, nowMs)} ${similar(lost, instances, words)}`);
  return bySubstring(wanted, instances, gone, nowMs);
}

function bySubstring(
  wanted: string,
  instances: readonly Instance[],
  gone: readonly GoneInstance[],
  nowMs: number,
): Instance {
  const part = wanted.toLowerCase();
  const fits = (name: string): boolean => name.toLowerCase().includes(part);
  // A part of a name never means an OpenCode 2 service as a whole: each of its directories shares that part.
  const live = instances.filter((instance) => !isService(instance) && namesOf(instance).some(fits));
  const lost = gone.filter(({ name }) => fits(name));
  const shown = JSON.stringify(singleLine(wanted, MAX_QUERY_CHARS));
  const [only, ...others] = live;
  if (only === undefined && lost.length === 0)
    throw new QueryError((words) => `No instance fits ${shown}. ${listing(instances, words)}`);
  if (lost.length > 0) {
    const names = bounded(lost, (one) => describeGone(one, nowMs));
    const rest = (words: ReaderWords): string =>
      live.length === 0
        ? listing(instances, words)
        : `Known instances with such a name: ${bounded(live, nameAndPlace)}. Give the full name of the one you mean.`;
    throw new QueryError((words) => `${shown} fits an instance that is gone. ${names} ${rest(words)}`);
  }
  if (only === undefined || others.length > 0) {
    throw new QueryError(
      `${shown} fits ${live.length} instances: ${bounded(live, nameAndPlace)}. Give the full name of one.`,
    );
  }
  if (isAdvertisedOnly(only)) {
    throw new QueryError(
      `${shown} is only a part of ${quoteName(only.name)}, which was found by its own announcement on the local network, where anyone can announce any name. Give its full name if you mean it.`,
    );
  }
  return only;
}

function isService({ directory, server: { claims, endpoints } }: Instance): boolean {
  const isOpencode2 = endpoints.some(
    ({ lastHealthy }) => lastHealthy !== undefined && lastHealthy.dialect !== 'opencode-1',
  );
  return directory === undefined && (claims.service !== undefined || isOpencode2);
}

/** Anyone on the LAN can announce any name, so a part of a name never leads there. */
function isAdvertisedOnly({ server }: Instance): boolean {
  return server.endpoints.every(({ candidate }) => candidate.endpoint.route === 'lan' && candidate.pinned !== true);
}

function namesOf({ name, aliases }: Instance): readonly string[] {
  return aliases === undefined ? [name] : [name, ...aliases];
}

function similar(lost: GoneInstance, instances: readonly Instance[], words: ReaderWords): string {
  const base = lost.name.replace(/@.*/, '').toLowerCase();
  const alike = instances.filter(({ name }) => name.toLowerCase().includes(base));
  return alike.length === 0
    ? listing(instances, words)
    : `Similar instances: ${bounded(alike, nameAndPlace)}. Give the full name of the one you mean.`;
}

function listing(instances: readonly Instance[], words: ReaderWords): string {
  return instances.length === 0
    ? `No instance is known now; ${words.refresh} to search again.`
    : `Known instances: ${bounded(instances, nameAndPlace)}; ${words.look} for details.`;
}

function describeGone({ name, host, directory, lastSeenMs, reason }: GoneInstance, nowMs: number): string {
  const place = directory === undefined ? quoteName(host) : `${quoteName(host)}, ${quoteShort(directory, 120)}`;
  const seen = lastSeenMs === undefined ? 'never answered' : `last answered ${ago(nowMs - lastSeenMs)}`;
  return `${quoteName(name)} (${place}) is gone: ${reason}; it ${seen}.`;
}

function nameAndPlace({ name, host, state }: Instance): string {
  return `${quoteName(name)} (${quoteName(host)}, ${state})`;
}

function bounded<T>(items: readonly T[], show: (item: T) => string): string {
  const shown = items.slice(0, MAX_LISTED).map(show).join(', ');
  return items.length > MAX_LISTED ? `${shown} and ${items.length - MAX_LISTED} more` : shown;
}

function ago(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min ago` : `${Math.round(minutes / 60)} h ago`;
}
