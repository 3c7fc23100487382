import { describe, expect, test } from 'vitest';

import type { ApprovalRule, Approver } from '../../src/config/settings.ts';
import type { WaitingRequest } from '../../src/opencode/waiting.ts';
import { approverOf } from '../../src/operations/approval.ts';

const bash = (...patterns: string[]): WaitingRequest => ({
  kind: 'permission',
  request: { id: 'per_1', sessionID: 'ses_1', permission: 'bash', patterns, always: [] },
});
const question: WaitingRequest = { kind: 'question', request: { id: 'que_1', sessionID: 'ses_1', questions: [] } };

const who = (rules: readonly ApprovalRule[], waiting: WaitingRequest, instance = 'laptop'): Approver =>
  approverOf({ approve: 'human', approvalRules: rules }, instance, waiting);

describe('who settles a request', () => {
  test('the first rule that fits, else the default', () => {
    const rules: ApprovalRule[] = [
      { permission: 'bash', pattern: 'git status*', approve: 'model' },
      { instance: 'build-*', approve: 'ask' },
      { permission: 'question', approve: 'model' },
    ];
    expect(who(rules, bash('git status -s'))).toBe('model');
    expect(who(rules, bash('rm -rf build'))).toBe('human');
    expect(who(rules, bash('rm -rf build'), 'build-1')).toBe('ask');
    expect(who(rules, question)).toBe('model');
    expect(who([], question)).toBe('human');
  });

  test('a rule with a pattern must cover all that the request covers, and covers no request that names nothing', () => {
    const rules: ApprovalRule[] = [{ pattern: 'git *', approve: 'model' }];
    expect(who(rules, bash('git status', 'git log'))).toBe('model');
    expect(who(rules, bash('git status', 'rm -rf /'))).toBe('human');
    expect(who(rules, bash())).toBe('human');
    expect(who(rules, question)).toBe('human');
  });
});
