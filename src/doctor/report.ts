import { singleLine, withoutQuotations } from '../base/plain-text.ts';

/** `-`: not in use here, which is no fault. */
export type CheckVerdict = 'ok' | 'warn' | 'broken' | '-';

/** What to do. `command` is to be typed, or pasted, as it is; `text` says when and why. */
export interface Advice {
  readonly text: string;
  readonly command?: string;
}

/** One line of the report. Text is on one line, bounded and safe to show. */
export interface Check {
  readonly verdict: CheckVerdict;
  readonly subject: string;
  readonly text: string;
  readonly advice?: Advice;
  readonly details?: readonly Check[];
  /** Of a way to an instance. */
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
  /** `only`: no other way is known; `proven`, `suspected`: that it leads to the same opencode as another one. */
  readonly identity: 'only' | 'proven' | 'suspected';
  /** `withheld`: one is known and was not sent; `known`: so, and whether it was sent is not told. */
  readonly password: 'sent' | 'known' | 'not asked for' | 'not found' | 'refused' | 'withheld' | 'unknown';
  /** Where it was found. */
  readonly password_from?: string;
}

export interface Section {
  readonly id: string;
  readonly title: string;
  readonly checks: readonly Check[];
}

/** What `doctor --json` prints. Fields may be added; what is here keeps its name and meaning. */
export interface DoctorReport {
  readonly format: 1;
  readonly version: string;
  /** The worst of all lines. */
  readonly verdict: 'ok' | 'warn' | 'broken';
  /** With `doctor NAME`. */
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
  more: Pick<Check, 'advice' | 'details'> = {},
): Check {
  const { advice, details } = more;
  return {
    verdict,
    subject: singleLine(subject, MAX_TEXT_CHARS),
    text: singleLine(text, MAX_TEXT_CHARS),
    ...(advice !== undefined && { advice: cleanAdvice(advice) }),
    ...(details !== undefined && details.length > 0 && { details }),
  };
}

function cleanAdvice({ text, command }: Advice): Advice {
  return {
    text: singleLine(text, MAX_TEXT_CHARS),
    ...(command !== undefined && { command: singleLine(command, Infinity) }),
  };
}

/** The worst of these; `ok` where there are none. */
function worst(verdicts: readonly CheckVerdict[]): CheckVerdict {
  return RANK.find((one) => verdicts.includes(one)) ?? 'ok';
}

/** What other things need is mended first. */
const MENDED_FIRST: readonly string[] = ['program', 'state', 'tailnet', 'relay', 'sources'];

/** Everything to do, what is broken first; the same thing once. */
function todoOf(sections: readonly Section[]): readonly Todo[] {
  const rank = ({ id }: Section): number =>
    MENDED_FIRST.includes(id) ? MENDED_FIRST.indexOf(id) : MENDED_FIRST.length;
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

function flat(checks: readonly Check[]): readonly Check[] {
  return checks.flatMap((one) => [one, ...flat(one.details ?? [])]);
}

/**
 * The advice that a reason of ours ends with: `…; run: COMMAND`, or `…; what to do`. What stands in quotation marks are the words of
 * others, the name of a file for one, and gives none.
 */
export function adviceIn(reason: string): Advice | undefined {
  // Of a command that was cut the rest is another one.
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
