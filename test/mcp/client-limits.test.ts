import { describe, expect, test } from 'vitest';

import { callLimitMs } from '../../src/mcp/client-limits.ts';

const SEND_TIMEOUT_MS = 300_000;

describe('callLimitMs', () => {
  test.each<[client: string | undefined, progress: boolean, sendTimeoutMs: number, expected: number]>([
    // Unknown clients: under 50 s, since most give up after 60 s, even with progress.
    [undefined, false, SEND_TIMEOUT_MS, 48_000],
    ['some-client', true, SEND_TIMEOUT_MS, 48_000],
    // Names that only resemble a known client's.
    ['Claude-Code', true, SEND_TIMEOUT_MS, 48_000],
    ['claude-code-fork', true, SEND_TIMEOUT_MS, 48_000],
    // Clients that wait as long as progress comes.
    ['claude-code', true, 86_400_000, 86_400_000],
    ['claude-code', false, SEND_TIMEOUT_MS, 48_000],
    ['opencode', true, SEND_TIMEOUT_MS, SEND_TIMEOUT_MS],
    ['opencode', false, SEND_TIMEOUT_MS, 48_000],
    // Gives up after 300 s, with or without progress.
    ['codex-mcp-client', true, 86_400_000, 280_000],
    ['codex-mcp-client', false, SEND_TIMEOUT_MS, 280_000],
    // Never above SEND_TIMEOUT_MS.
    [undefined, false, 5_000, 5_000],
    ['codex-mcp-client', false, 5_000, 5_000],
  ])('for client %s, progress %s and SEND_TIMEOUT_MS %d is %d ms', (client, progress, sendTimeoutMs, expected) => {
    expect(callLimitMs(client, progress, sendTimeoutMs)).toBe(expected);
  });
});
