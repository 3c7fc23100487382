import { reworded, withoutQuotations } from '../../base/plain-text.ts';

/** What operations advise a client's model to call, and what a person types instead. In this order. */
const PHRASES: readonly (readonly [RegExp, string])[] = [
  [/ where this server runs(?=:)| A change of [^.]+ takes a restart of this server\./g, ''],
  [
    /wait with instances \[.*?\] or read with instance .+?, session_id \w+(?: and message_id \w+)?/g,
    'opencode-mcp wait, or opencode-mcp read',
  ],
  [/Call list_instances for details, or refresh_instances to look again/g, 'opencode-mcp list shows more'],
  [/send to another session \(create_session\), or send with when_busy: queue/g, 'or send with --queue'],
  [/abort: true \(stops it first\)/g, '--interrupt (stops it first)'],
  [/create_session or send starts one/g, 'send starts one'],
  [/list_sessions with instance (\S+)/g, 'opencode-mcp sessions $1'],
  [/\(instance \S+, request_id (\w+)\)/g, '(--request $1)'],
  [/\bCall (?:(?:list_|refresh_)?instances|get_status)\b/g, 'Run opencode-mcp list'],
  [/\bcall (?:(?:list_|refresh_)?instances|get_status)\b/g, 'run opencode-mcp list'],
  [/\b(?:list_instances|refresh_instances|get_status)\b/g, 'opencode-mcp list'],
  [/\b(?:list_sessions|get_session)\b/g, 'opencode-mcp sessions'],
  [/\babort_session\b/g, 'opencode-mcp abort'],
  [/\bcreate_session\b/g, 'opencode-mcp send'],
  [/\bsend_message\b/g, 'opencode-mcp send'],
  [/\bwith respond\b/g, 'with opencode-mcp respond'],
  [/\b[Cc]all respond\b/g, 'Run opencode-mcp respond'],
  [/\breply: (once|reject)\b/g, '--reply $1'],
  [/\b(?:the )?request_id\b/g, '--request'],
  [/\bCall again\b/g, 'Run it again'],
  [/\bcall again\b/g, 'run it again'],
  [/\b(?:the )?session_id\b/g, 'the session'],
  [/\bthis client cannot ask\b/g, 'there is no terminal to ask'],
];

/** A message of the operations with the words of the shell for what to do next. */
export function inShellWords(message: string): string {
  return reworded(message, PHRASES);
}

/** Whether an operation says of itself that it did not send; what an instance says stands in quotation marks. */
export function saysNothingWasSent(message: string): boolean {
  return /nothing was sent/i.test(withoutQuotations(message));
}

/** A request that waits, without its id: where it is the only one nobody needs that. */
export function withoutId(request: string): string {
  return request.replace(/^(permission|answer) \w+: /, '$1: ');
}
