import { matchesAsWritten, matchesPattern } from '../../config/pattern.ts';
import type { ApprovalRule, Approver } from '../../config/settings.ts';
import { CUT_MARK } from '../../http/json-cutter.ts';
import type { PermissionReply } from '../../opencode/api.ts';
import type { WaitingRequest } from '../../opencode/waiting.ts';

/** The person's choice of who may settle what. */
export interface Approvals {
  readonly approve: Approver;
  readonly approvalRules: readonly ApprovalRule[];
}

/** The answer to a request. */
export type Settlement =
  | { readonly kind: 'permission'; readonly reply: PermissionReply; readonly message?: string }
  | { readonly kind: 'answers'; readonly answers: readonly (readonly string[])[] }
  | { readonly kind: 'reject' };

/** How rules name questions. */
const QUESTION = 'question';

const STRICTEST_FIRST = ['never', 'human', 'ask', 'model'] as const satisfies readonly Approver[];

/**
 * Who settles a request of the instance with `names`. Each piece of the request gets its approver from the first rule that fits,
 * else the default; the strictest approver wins.
 */
export function approverOf(
  { approve, approvalRules }: Approvals,
  names: readonly string[],
  waiting: WaitingRequest,
): Approver {
  const permission = waiting.kind === 'permission' ? waiting.request.permission : QUESTION;
  const rules = approvalRules
    .filter(
      (one) =>
        (one.instance === undefined || names.some((name) => matchesPattern(one.instance ?? '', name))) &&
        (one.permission === undefined || matchesPattern(one.permission, permission)),
    )
    .map(({ pattern, approve: who }) => ({
      who,
      ...(pattern !== undefined && { pattern: spacingOf(waiting)(pattern) }),
    }));
  // The part that was cut off may hold anything, so any pattern may fit.
  if (isCut(waiting)) return strictest([approve, ...rules.map(({ who }) => who)]) ?? approve;
  return strictest(piecesOf(waiting).map((piece) => approverOfPiece(rules, piece, approve))) ?? approve;
}

function isCut({ kind, request }: WaitingRequest): boolean {
  return (
    kind === 'permission' && [...request.patterns, request.metadata?.command].some((one) => one?.includes(CUT_MARK))
  );
}

interface Rule {
  readonly who: Approver;
  readonly pattern?: string;
}

/** Assignments, redirections and the shell's keywords may precede the name of a command. */
const BEFORE_A_NAME =
  /^(?:[a-z_]\w*(?:\[.*\])?\+?=|(?:\d*|\{?\w+\})[<>]|&>|(?:!|time|coproc|if|then|elif|else|while|until|do) )/i;

/** `piece` is undefined if the request names nothing: then only rules without a pattern fit. */
function approverOfPiece(rules: readonly Rule[], piece: string | undefined, otherwise: Approver): Approver {
  const fitting = rules.findIndex(
    ({ pattern }) => pattern === undefined || (piece !== undefined && matchesAsWritten(pattern, piece)),
  );
  const own = rules[fitting]?.who ?? otherwise;
  if (piece === undefined) return own;
  // `RM F` is an `rm` on macOS, but `git branch -D` is no `-d`; `FOO=1 rm F` is an `rm`. A rule that fits only in another case or
  // from a later word on can make it stricter, never looser. Every later word counts, since nothing marks the command's name.
  const hasBefore = BEFORE_A_NAME.test(piece);
  const alike = rules
    .slice(0, fitting === -1 ? rules.length : fitting)
    .filter(
      ({ pattern = '' }) => matchesPattern(pattern, piece) || (hasBefore && matchesPattern(`* ${pattern}`, piece)),
    );
  return strictest([own, ...alike.map(({ who }) => who)]) ?? own;
}

function strictest(approvers: readonly Approver[]): Approver | undefined {
  return STRICTEST_FIRST.find((one) => approvers.includes(one));
}

function piecesOf(waiting: WaitingRequest): readonly (string | undefined)[] {
  if (waiting.kind === 'question') return [undefined];
  const { permission, patterns, metadata } = waiting.request;
  // Its patterns are directories; opencode (1.18.33) asks about the command separately.
  const command = permission === 'external_directory' ? undefined : metadata?.command;
  const behindMarks = patterns.flatMap(afterHeredocMark).flatMap((text) => beyond(text, patterns));
  const pieces = new Set([...patterns, ...behindMarks, ...beyond(command ?? '', patterns)].map(spacingOf(waiting)));
  return pieces.size === 0 ? [undefined] : [...pieces].map((piece) => (piece === '' ? undefined : piece));
}

/** The rest of the line after `cat << E;`: opencode (1.18.33) can list it as a part of `cat`, but the shell runs it. */
function afterHeredocMark(listed: string): readonly string[] {
  return listed.split('\n').flatMap((line) => {
    const mark = line.indexOf('<<');
    return mark === -1 ? [] : (/(?:[;|]|(?<!>)&(?!>)).*/.exec(line.slice(mark)) ?? []);
  });
}

/** Only commands have their spacing normalized: in a path every space counts. */
function spacingOf({ kind, request }: WaitingRequest): (text: string) => string {
  const isShell = kind === 'permission' && (request.permission === 'bash' || request.metadata?.command !== undefined);
  return isShell ? evenSpaced : (text) => text;
}

/** As the shell reads it, so that `rm  -rf` fits `rm -rf*`: it joins lines at a backslash, and takes several spaces as one. */
function evenSpaced(text: string): string {
  return text
    .replaceAll('\\\n', '')
    .replace(/[ \t\n]+/g, ' ')
    .replace(/^ | $/g, '');
}

/** Each is compared at each place. Commands past this count as not listed, which is the strict side. */
const MAX_LISTED = 100;
/** Characters compared, some 0.2 s: a hostile opencode could list what nearly matches everywhere. Ten times what 10,000 commands need. */
const MAX_COMPARED = 100_000_000;

const ENDS_A_COMMAND = /^[ \t\n;&|(){}`]?$/;
const SEPARATOR = /^[ \t\n;&|(){}]$/;
const BLANK = /^[ \t]$/;
/** A backquote is no mere separator: the shell runs what it encloses, and then its output. */
const UNLISTED = /`|[^\n;&|(){}`]+/y;

/**
 * The parts of `command` that opencode (1.18.33) has not `listed` word for word, without separators: `cd`, assignments, bare
 * redirections, comments, what follows `<<` on a line. Split where a command may end. What follows a listed command is also a
 * piece together with it: `rm` can be listed while the command is `rm -rf F`.
 */
function beyond(command: string, listed: readonly string[]): readonly string[] {
  // `git status` also begins `git status -s`.
  const longestFirst = [...new Set(listed)].filter(Boolean).toSorted((one, other) => other.length - one.length);
  const known = longestFirst.slice(0, MAX_LISTED);
  let left = MAX_COMPARED;
  const standsAt = (one: string, place: number): boolean => {
    let same = 0;
    while (same < one.length && one.charCodeAt(same) === command.charCodeAt(place + same)) same += 1;
    left -= same + 1;
    // A whole word: `rm` is not in `rmdir`.
    return same === one.length && ENDS_A_COMMAND.test(command.charAt(place + same));
  };
  const rest: string[] = [];
  let at = 0;
  let begin = 0;
  while (at < command.length) {
    const place = at;
    const found = known.find((one) => left > 0 && standsAt(one, place));
    if (found !== undefined) at += found.length;
    else if (SEPARATOR.test(command.charAt(at))) {
      at += 1;
      if (!BLANK.test(command.charAt(place))) begin = at;
    } else {
      UNLISTED.lastIndex = at;
      const text = UNLISTED.exec(command)?.[0] ?? command.slice(at);
      at += text.length;
      rest.push(text, command.slice(begin, at));
    }
  }
  return rest;
}
