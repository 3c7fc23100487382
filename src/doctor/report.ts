import { quoteShort, singleLine, withoutQuotations } from '../base/plain-text.ts';

/** `-`: not in use here, which is not a fault. */
export type CheckVerdict = 'ok' | 'warn' | 'broken' | '-';

/** What to do: `command` can be pasted into a shell as it is; `text` says when and why. */
export interface Advice {
  readonly text: string;
  readonly command?: string;
}

/** One line of the report. Its text is on one line, bounded and safe to show. */
export interface Check {
  readonly verdict: CheckVerdict;
  readonly subject: string;
  readonly text: string;
  readonly advice?: Advice;
  readonly details?: readonly Check[];
  /** If the line is about an endpoint of an instance. */
  readonly endpoint?: EndpointFacts;
}

export interface EndpointFacts {
  readonly url: string;
  readonly route: string;
  readonly source: string;
  readonly state: string;
  readonly latency_ms?: number;
  readonly version?: string;
  readonly dialect?: string;
  /** `only`: the instance has no other endpoint; `proven` or `suspected`: another endpoint leads to the same opencode. */
  readonly identity: 'only' | 'proven' | 'suspected';
  /** `withheld`: known, but not sent; `known`: the endpoint did not answer, so whether it accepts it is unknown. */
  readonly password: 'sent' | 'known' | 'not asked for' | 'not found' | 'refused' | 'withheld' | 'unknown';
  readonly password_from?: string;
}

export interface Section {
  readonly id: string;
  readonly title: string;
  readonly checks: readonly Check[];
}

/** The output of `doctor --json`. Fields may be added; existing ones keep their names and meanings. */
export interface DoctorReport {
  readonly format: 1;
  readonly version: string;
  readonly verdict: 'ok' | 'warn' | 'broken';
  /** Only of `doctor NAME`. */
  readonly name?: string;
  readonly sections: readonly Section[];
  readonly todo: readonly Todo[];
}

export interface Todo extends Advice {
  readonly verdict: CheckVerdict;
  readonly subject: string;
}

const MAX_TEXT_CHARS = 600;
const RANK: readonly CheckVerdict[] = ['broken', 'warn', 'ok', '-'];

export function check(
  verdict: CheckVerdict,
  subject: string,
  text: string,
  { advice, details = [] }: { readonly advice?: Advice | undefined; readonly details?: readonly Check[] } = {},
): Check {
  return {
    verdict,
    subject: singleLine(subject, MAX_TEXT_CHARS),
    text: singleLine(text, MAX_TEXT_CHARS),
    ...(advice !== undefined && { advice: cleanAdvice(advice) }),
    ...(details.length > 0 && { details }),
  };
}

function cleanAdvice({ text, command }: Advice): Advice {
  return {
    text: singleLine(text, MAX_TEXT_CHARS),
    ...(command !== undefined && { command: singleLine(command, Infinity) }),
  };
}

/** `ok` if there are none. */
function worst(verdicts: readonly CheckVerdict[]): CheckVerdict {
  return RANK.find((one) => verdicts.includes(one)) ?? 'ok';
}

/** Sections that others depend on come first in the list of things to do. */
const FIRST: readonly string[] = ['program', 'state', 'tailnet', 'relay', 'sources'];

/** All advice, broken things first, each only once. */
function todoOf(sections: readonly Section[]): readonly Todo[] {
  const rank = ({ id }: Section): number => (FIRST.includes(id) ? FIRST.indexOf(id) : FIRST.length);
  const ordered = sections.toSorted((one, other) => rank(one) - rank(other));
  const found = new Map<string, Todo>();
  for (const { verdict, subject, advice } of ordered.flatMap(({ checks }) => flat(checks))) {
    if (advice === undefined || (verdict !== 'broken' && verdict !== 'warn')) continue;
    const key = advice.command ?? advice.text;
    const known = found.get(key);
    if (known === undefined || (known.verdict === 'warn' && verdict === 'broken'))
      found.set(key, { verdict, subject, ...advice });
  }
  return [...found.values()].toSorted((one, other) => RANK.indexOf(one.verdict) - RANK.indexOf(other.verdict));
}

export function reportOf(version: string, sections: readonly Section[], name?: string): DoctorReport {
  const verdict = worst(sections.flatMap(({ checks }) => flat(checks)).map((one) => one.verdict));
  return {
    format: 1,
    version,
    verdict: verdict === '-' ? 'ok' : verdict,
    ...(name !== undefined && { name }),
    sections,
    todo: todoOf(sections),
  };
}

const MAX_PATH_CHARS = 300;

/** A path inside a sentence. */
export function pathName(path: string): string {
  return quoteShort(path, MAX_PATH_CHARS);
}

function flat(checks: readonly Check[]): readonly Check[] {
  return checks.flatMap((one) => [one, ...flat(one.details ?? [])]);
}

/**
 * The advice at the end of one of our reasons: `…; run: COMMAND`, or `…; what to do`. Ignores quoted text, which comes from other
 * machines, such as the name of a file.
 */
export function adviceIn(reason: string): Advice | undefined {
  // The reason was cut, and half a command must not be run.
  if (/\u2026["»]?$/.test(reason)) return { text: reason };
  const ours = withoutQuotations(reason);
  const [, before = '', introduction] =
    /^(.*?)((?:[;,] (?:or, if it holds registrations only, )?)?run(?: there)?: ).+$/.exec(ours) ?? [];
  if (introduction !== undefined) {
    const command = reason.slice(before.length + introduction.length);
    return { text: lastClause(reason.slice(0, before.length)) ?? reason.slice(0, before.length), command };
  }
  const text = lastClause(reason);
  if (text === 'run tailscale up')
    return { text: 'log this machine in, as root or its operator', command: 'tailscale up' };
  return text === undefined ? undefined : { text };
}

function lastClause(reason: string): string | undefined {
  const at = withoutQuotations(reason).lastIndexOf('; ');
  return at === -1 ? undefined : reason.slice(at + 2);
}
