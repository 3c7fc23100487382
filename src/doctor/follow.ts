import { quoted, quoteName, quoteShort, shellWord, singleLine } from '../base/plain-text.ts';
import { nearest } from '../config/file/nearest.ts';
import type { Instance, ProbedEndpoint, Snapshot } from '../model/instance.ts';
import { adviceIn, type Advice, check, type Check, type Section } from './report.ts';

const MAX_NAME_CHARS = 128;
const MAX_NEAR = 8;
/** Shorter parts of a name match too many others. */
const MIN_PART_CHARS = 3;

/** The sections of `doctor NAME`. `known` has the checks of all instances. */
export function follow(name: string, snapshot: Snapshot, known: readonly Check[]): readonly Section[] {
  const wanted = name.trim().toLowerCase();
  const all = [...snapshot.instances, ...snapshot.resting];
  const exact = all.filter((one) => namesOf(one).some((own) => own.toLowerCase() === wanted));
  const fitting =
    exact.length > 0 ? exact : all.filter((one) => namesOf(one).some((own) => own.toLowerCase().includes(wanted)));
  const gone = snapshot.gone.filter((one) => one.name.toLowerCase() === wanted);
  return [
    { id: 'seen', title: 'Seen by', checks: seenChecks(fitting, snapshot) },
    { id: 'dropped', title: 'Left out, with this name or a similar one', checks: droppedChecks(wanted, snapshot) },
    {
      id: 'instances',
      title: 'Probed',
      checks: known.filter(({ subject }) => fitting.some((one) => quoteName(one.name) === subject)),
    },
    { id: 'name', title: 'Its name', checks: [nameCheck(name, { fitting, gone, snapshot })] },
  ].filter(({ checks }) => checks.length > 0);
}

function seenChecks(fitting: readonly Instance[], { sources }: Snapshot): readonly Check[] {
  const endpoints = fitting.flatMap(({ server }) => server.endpoints);
  return sources.map(({ name, status, reason = '', candidates }) => {
    const own = [...new Set(endpoints.filter(({ candidate }) => candidate.source === name).map(sightingText))];
    if (own.length > 0) return check('ok', name, own.join(', '));
    const state =
      status === 'ok'
        ? `no, among ${candidates} seen`
        : `no: ${status}${reason === '' ? '' : `: ${reason.split('; ', 1)[0]}`}`;
    return check(status === 'failed' ? 'warn' : '-', name, state);
  });
}

function sightingText({ candidate: { key, endpoint, claims } }: ProbedEndpoint): string {
  const named = claims.name === undefined ? '' : ` as ${quoteShort(claims.name, MAX_NAME_CHARS)}`;
  return `${quoteShort(key, MAX_NAME_CHARS)}${named} at ${singleLine(endpoint.url, MAX_NAME_CHARS)} (${endpoint.route})`;
}

function droppedChecks(wanted: string, snapshot: Snapshot): readonly Check[] {
  return leftOut(wanted, snapshot)
    .slice(0, MAX_NEAR)
    .map(({ verdict, source, subject, reason }) => check(verdict, `${source}: ${subject}`, reason));
}

interface LeftOut {
  readonly verdict: 'warn' | '-';
  readonly source: string;
  readonly subject: string;
  readonly reason: string;
  /** Whether the subject has a part of the name; otherwise only the reason has. */
  readonly bySubject: boolean;
}

/** Notes and left out candidates with a part of the name in them, best match first. */
function leftOut(wanted: string, { notes, sources }: Snapshot): readonly LeftOut[] {
  const parts = [wanted, ...wanted.split(/[-@:/. ]+/)].filter((part) => part.length >= MIN_PART_CHARS);
  const rank = (text: string): number => {
    const at = parts.findIndex((part) => text.toLowerCase().includes(part));
    return at === -1 ? parts.length : at;
  };
  const all = [
    ...notes.map((note) => ({ verdict: 'warn' as const, ...note })),
    ...sources.flatMap(({ name, dropped }) => dropped.map((one) => ({ verdict: '-' as const, source: name, ...one }))),
  ];
  return all
    .map((one) => ({ ...one, subjectRank: rank(one.subject), reasonRank: rank(one.reason) }))
    .filter(({ subjectRank, reasonRank }) => Math.min(subjectRank, reasonRank) < parts.length)
    .toSorted((one, other) => one.subjectRank - other.subjectRank || one.reasonRank - other.reasonRank)
    .map((one) => ({ ...one, bySubject: one.subjectRank < parts.length }));
}

interface Found {
  readonly fitting: readonly Instance[];
  readonly gone: Snapshot['gone'];
  readonly snapshot: Snapshot;
}

function nameCheck(name: string, { fitting, gone, snapshot }: Found): Check {
  const shown = quoted(name, MAX_NAME_CHARS);
  const [only, ...others] = fitting;
  const [lost] = gone;
  if (lost !== undefined && !fitting.some((one) => one.name === lost.name)) return shadowedCheck(shown, lost, snapshot);
  if (only === undefined) {
    const advice = notFoundAdvice(name, snapshot);
    return check('broken', shown, 'nothing with that name was found', { advice });
  }
  if (others.length > 0) {
    const names = fitting
      .slice(0, MAX_NEAR)
      .map((one) => quoteName(one.name))
      .join(', ');
    return check('warn', shown, `fits ${fitting.length} instances: ${names}`, {
      advice: { text: 'give a full name' },
    });
  }
  if (only.name.toLowerCase() === name.trim().toLowerCase())
    return check('ok', quoteName(only.name), 'is its name in every tool');
  const isAlias = namesOf(only).some((one) => one.toLowerCase() === name.trim().toLowerCase());
  return check(
    'ok',
    quoteName(only.name),
    isAlias ? `is its name now; ${shown} still works` : `is its name; ${shown} is a part of it`,
  );
}

/** A name that was shown stays with its instance, so a new instance gets another name. */
function shadowedCheck(shown: string, { reason, name }: Snapshot['gone'][number], { instances }: Snapshot): Check {
  const alike = instances.filter((one) => one.name.toLowerCase().startsWith(`${name.toLowerCase()}@`));
  const [other] = alike;
  const text = `was the name of an instance that is gone: ${reason}`;
  if (other === undefined) return check('broken', shown, text, { advice: { text: 'start that instance again' } });
  return check('warn', shown, `${text}; the new one is called ${alike.map((one) => quoteName(one.name)).join(', ')}`, {
    advice: { text: `call it ${quoteName(other.name)}; after a restart the server gives it the short name` },
  });
}

/** The likeliest cause: a mistyped name, something that was left out, a source that failed. */
function notFoundAdvice(name: string, snapshot: Snapshot): Advice {
  const { instances, sources } = snapshot;
  const meant = nearest(
    name,
    instances.map((one) => one.name),
  );
  if (meant !== undefined)
    return { text: `did you mean ${quoteName(meant)}?`, command: `opencode-mcp doctor ${shellWord(meant)}` };
  const near = leftOut(name.trim().toLowerCase(), snapshot).find(({ bySubject }) => bySubject);
  const advice = near && adviceIn(near.reason);
  if (near !== undefined)
    return advice === undefined
      ? { text: `${near.subject}: ${near.reason}` }
      : { ...advice, text: `${near.subject}: ${advice.text}` };
  const failed = sources.find(({ status }) => status === 'failed');
  if (failed !== undefined) return { text: `repair the source ${failed.name} first`, command: 'opencode-mcp doctor' };
  return {
    text: 'start opencode-connected in its directory. If that is on another machine, it needs a relay, the tailnet or --lan; run there, this shows where it is registered:',
    command: 'opencode-connected status',
  };
}

function namesOf({ name, aliases = [] }: Instance): readonly string[] {
  return [name, ...aliases];
}
