/**
 * How long a client waits for a tool call before it gives up and loses the answer. Measured: Claude Code 2.1.329 waits for hours,
 * Codex 0.169 for 300 s whatever progress it gets, opencode 1.18.33 for 60 s after the last progress. Claude Desktop and the
 * SDKs' own clients wait 60 s.
 */
export const UNKNOWN_CLIENT_MS = 48_000;
const CODEX_MS = 280_000;

/** How long a call may block, in ms; at most `sendTimeoutMs`. */
export function callLimitMs(clientName: string | undefined, hasProgressToken: boolean, sendTimeoutMs: number): number {
  return Math.min(sendTimeoutMs, clientLimitMs(clientName, hasProgressToken));
}

function clientLimitMs(clientName: string | undefined, hasProgressToken: boolean): number {
  if (clientName === 'codex-mcp-client') return CODEX_MS;
  const waitsOnProgress = clientName === 'claude-code' || clientName === 'opencode';
  return waitsOnProgress && hasProgressToken ? Number.POSITIVE_INFINITY : UNKNOWN_CLIENT_MS;
}
