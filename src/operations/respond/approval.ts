import { matchesPattern } from '../../config/pattern.ts';
import type { ApprovalRule, Approver } from '../../config/settings.ts';
import type { PermissionReply } from '../../opencode/api.ts';
import type { WaitingRequest } from '../../opencode/waiting.ts';

/** Who may settle what; the person's own choice. */
export interface Approvals {
  readonly approve: Approver;
  readonly approvalRules: readonly ApprovalRule[];
}

/** What is sent to opencode. */
export type Settlement =
  | { readonly kind: 'permission'; readonly reply: PermissionReply; readonly message?: string }
  | { readonly kind: 'answers'; readonly answers: readonly (readonly string[])[] }
  | { readonly kind: 'reject' };

/** The kind that rules name questions by. */
const QUESTION = 'question';

const STRICTEST_FIRST = ['never', 'human', 'ask', 'model'] as const satisfies readonly Approver[];

/**
 * Who settles a request of the instance that bears `names`. For each piece that the request covers the first rule that fits
 * counts, else the default; the strictest of them wins.
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
    .map(({ pattern, approve: who }) => ({ who, ...(pattern !== undefined && { pattern: evenSpaced(pattern) }) }));
  return strictest(piecesOf(waiting).map((piece) => approverOfPiece(rules, piece, approve))) ?? approve;
}

interface Rule {
  readonly who: Approver;
  readonly pattern?: string;
}

/** An assignment or a redirection may stand before the name of a command, and `time` and `coproc`, which are the shell's own words. */
const BEFORE_A_NAME = /^(?:[a-z_][\w[\]]*\+?=|\d*[<>]|&>|time |coproc )/i;

/** `piece` is undefined where nothing is named: only a rule without a pattern fits that. */
function approverOfPiece(rules: readonly Rule[], piece: string | undefined, otherwise: Approver): Approver {
  const fitting = rules.findIndex(
    ({ pattern }) => pattern === undefined || (piece !== undefined && matchesPattern(pattern, piece)),
  );
  const own = rules[fitting]?.who ?? otherwise;
  if (piece === undefined || !BEFORE_A_NAME.test(piece)) return own;
  // `FOO=1 rm F` is an `rm` too: a rule that fits from a later word on makes it stricter, but never looser.
  const behind = rules
    .slice(0, fitting === -1 ? rules.length : fitting)
    .find(({ pattern }) => pattern !== undefined && matchesPattern(`* ${pattern}`, piece));
  return behind === undefined ? own : (strictest([own, behind.who]) ?? own);
}

function strictest(approvers: readonly Approver[]): Approver | undefined {
  return STRICTEST_FIRST.find((one) => approvers.includes(one));
}

function piecesOf(waiting: WaitingRequest): readonly (string | undefined)[] {
  if (waiting.kind === 'question') return [undefined];
  const { permission, patterns, metadata } = waiting.request;
  // Its patterns are directories; the command that goes there is asked about by itself (opencode 1.18.33).
  const command = permission === 'external_directory' ? undefined : metadata?.command;
  const pieces = new Set([...patterns, ...beyond(command ?? '', patterns)].map(evenSpaced));
  return pieces.size === 0 ? [undefined] : [...pieces];
}

/** As the shell reads it, so that `rm  -rf` fits `rm -rf*`: it joins lines that end in a backslash, and one space is as good as many. */
function evenSpaced(text: string): string {
  return text
    .replaceAll('\\\n', '')
    .replace(/[ \t\n]+/g, ' ')
    .replace(/^ | $/g, '');
}

/** Each is looked for at each place. Nobody writes as many commands in one; what is not looked for counts as not listed. */
const MAX_LISTED = 100;

const ENDS_A_COMMAND = /^[ \t\n;&|(){}`]?$/;
const SEPARATOR = /^[ \t\n;&|(){}]$/;
/** A backquote runs what it encloses, and then what that printed: no mere separator. */
const UNLISTED = /`|[^\n;&|(){}`]+/y;

/**
 * What stands in `command` beyond the commands that opencode (1.18.33) has `listed`, word for word, and beyond what separates them:
 * `cd`, assignments, redirections by themselves, comments, what follows `<<` on a line. Cut where a command may end.
 */
function beyond(command: string, listed: readonly string[]): readonly string[] {
  // `git status` also begins `git status -s`.
  const longestFirst = [...new Set(listed)].filter(Boolean).toSorted((one, other) => other.length - one.length);
  const known = longestFirst.slice(0, MAX_LISTED);
  const rest: string[] = [];
  let at = 0;
  while (at < command.length) {
    const place = at;
    // Not a part of a word: `rm` is not what stands in `rmdir`.
    const found = known.find(
      (one) => command.startsWith(one, place) && ENDS_A_COMMAND.test(command.charAt(place + one.length)),
    );
    if (found !== undefined) at += found.length;
    else if (SEPARATOR.test(command.charAt(at))) at += 1;
    else {
      UNLISTED.lastIndex = at;
      const text = UNLISTED.exec(command)?.[0] ?? command.slice(at);
      rest.push(text);
      at += text.length;
    }
  }
  return rest;
}
