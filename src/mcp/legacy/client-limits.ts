/**
 * How long a tool call may block before its client gives up on it, and the answer with it.
 * Measured on Claude Code 2.1.329 (hours), Codex 0.169 (300 s hard, progress does not help) and opencode
 * 1.18.33 (60 s, which progress resets). The MCP SDKs' own clients and Claude Desktop wait 60 s.
 */
const UNKNOWN_CLIENT_MS = 48_000;
const CODEX_MS = 280_000;

/** Milliseconds; never above `sendTimeoutMs`. */
export function callLimitMs(clientName: string | undefined, hasProgressToken: boolean, sendTimeoutMs: number): number {
  return Math.min(sendTimeoutMs, clientLimitMs(clientName ?? '', hasProgressToken));
}

function clientLimitMs(clientName: string, hasProgressToken: boolean): number {
  if (clientName === 'codex-mcp-client') return CODEX_MS;
  const waitsOnProgress = clientName === 'claude-code' || clientName === 'opencode';
  return waitsOnProgress && hasProgressToken ? Number.POSITIVE_INFINITY : UNKNOWN_CLIENT_MS;
}
