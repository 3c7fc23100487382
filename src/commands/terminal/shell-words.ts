import { shellWord } from '../../base/plain-text.ts';
import type { ReaderWords } from '../../model/advice.ts';

/** How a person at a shell does what a message advises. */
export const SHELL_WORDS: ReaderWords = {
  again: 'run it again',
  look: 'run opencode-mcp list',
  refresh: 'run opencode-mcp list',
  status: 'opencode-mcp list',
  sessions: 'opencode-mcp sessions',
  sessionsOf: (name) => `opencode-mcp sessions ${shellWord(name)}`,
  respond: 'opencode-mcp respond',
  respondTo: (name, requestId) => `opencode-mcp respond ${shellWord(name)} --request ${requestId}`,
  follow: (name, sessionId) =>
    `opencode-mcp wait ${shellWord(name)}, or opencode-mcp read ${shellWord(name)} ${sessionId}`,
  sendAnyway: 'send with --queue (after what runs) or --interrupt (stops it first)',
  doctor: (name) =>
    `Run opencode-mcp doctor ${shellWord(name)}: it reports whether a password was found, and where the right one goes.`,
  session: 'SESSION',
  request: '--request',
  messageKey: '--request-id',
  reply: (reply) => `--reply ${reply}`,
  answers: '--answer',
};

/** A waiting request without its id, which is not needed if it is the only one. */
export function withoutId(request: string): string {
  return request.replace(/^(permission|answer) \w+: /, '$1: ');
}
