import { matchesPattern } from '../config/pattern.ts';
import type { ApprovalRule, Approver } from '../config/settings.ts';
import type { PermissionReply } from '../opencode/api.ts';
import type { WaitingRequest } from '../opencode/waiting.ts';

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

/**
 * Who settles a request of `instance`. A rule with a pattern counts only where everything that the request covers fits it: opencode
 * tells each command of a compound one by itself (1.18.33), so that `git *` does not cover `git status && rm -rf /`.
 */
export function approverOf({ approve, approvalRules }: Approvals, instance: string, waiting: WaitingRequest): Approver {
  const permission = waiting.kind === 'permission' ? waiting.request.permission : QUESTION;
  const covered = waiting.kind === 'permission' ? waiting.request.patterns : [];
  const rule = approvalRules.find(
    (one) =>
      (one.instance === undefined || matchesPattern(one.instance, instance)) &&
      (one.permission === undefined || matchesPattern(one.permission, permission)) &&
      (one.pattern === undefined || fitsAll(one.pattern, covered)),
  );
  return rule?.approve ?? approve;
}

function fitsAll(pattern: string, covered: readonly string[]): boolean {
  return covered.length > 0 && covered.every((one) => matchesPattern(pattern, one));
}
