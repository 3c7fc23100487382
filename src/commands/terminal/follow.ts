import { shellWord, StreamCleaner } from '../../base/plain-text.ts';
import { type Answer, quoteName } from '../../operations/answer.ts';
import type { AskPerson, Call } from '../../operations/runtime.ts';
import { abortSession } from '../../operations/send/abort.ts';
import type { TurnView } from '../../operations/shapes.ts';
import { EXIT, type Exit, exitOf } from './exit-codes.ts';
import type { Shell } from './shell.ts';
import { withoutId } from './shell-words.ts';

/** Follows a turn: prints its text to stdout as it comes, and its outcome to stderr. */
export async function followTurn(
  shell: Shell,
  command: string,
  work: (call: Call) => Promise<Answer<TurnView>>,
): Promise<Exit> {
  const isJson = shell.flags.has('json');
  const text = new TurnText(isJson ? () => {} : shell.print);
  const interruption = askAtCtrlC(shell, text);
  const { askPerson, ...call } = shell.call((fresh) => text.add(fresh));
  const signal = AbortSignal.any([shell.signal, interruption.signal]);
  /** The person was asked and left it open. */
  let isOpen = false;
  const ask: AskPerson | undefined =
    askPerson &&
    (async (form, limit) => {
      text.endLine();
      const answer = await askPerson(form, limit);
      isOpen = answer.kind === 'dismissed' || answer.kind === 'late';
      return answer;
    });
  let data: TurnView;
  try {
    ({ data } = await work({ ...call, signal, ...(ask && { askPerson: ask }) }));
  } catch (error) {
    if (!isOpen) throw error;
    shell.tell(`opencode-mcp ${command}: nothing was answered; it still waits\n`);
    return EXIT.waiting;
  } finally {
    interruption.end();
    text.release();
    text.end();
  }
  if (isJson) shell.printJson(data);
  else if (text.isEmpty && data.text !== undefined && data.text !== '') shell.print(`${data.text}\n`);
  const exit = exitOf(data.outcome);
  if (interruption.wantsAbort() && exit === EXIT.running && data.session !== undefined)
    return await abortTurn(shell, { instance: data.instance, session_id: data.session.id });
  // The person knows why it waits.
  if (!isJson) shell.tell(notice(isOpen ? { ...data, reason: undefined } : data, command));
  return exit;
}

/**
 * At Ctrl-C, asks whether to stop following or to abort; both abort `signal`. A second Ctrl-C, or the first without a terminal,
 * stops following.
 */
function askAtCtrlC(
  shell: Shell,
  text: TurnText,
): { readonly signal: AbortSignal; readonly wantsAbort: () => boolean; readonly end: () => void } {
  const stop = new AbortController();
  const over = new AbortController();
  let wantsAbort = false;
  let isAsking = false;
  const interrupt = async (): Promise<void> => {
    if (isAsking || shell.askLine === undefined) {
      stop.abort();
      return;
    }
    isAsking = true;
    text.hold();
    shell.tell('\nStop following it (it goes on), or abort it?\n');
    const line = await shell.askLine('s stop, a abort, Enter go on> ', over.signal);
    isAsking = false;
    text.release();
    if (over.signal.aborted || line === '') return;
    wantsAbort = /^a/i.test(line?.trim() ?? '');
    stop.abort();
  };
  shell.onInterrupt(() => void interrupt());
  return { signal: stop.signal, wantsAbort: () => wantsAbort, end: () => over.abort() };
}

async function abortTurn(shell: Shell, target: { instance: string; session_id: string }): Promise<Exit> {
  const aborted = await shell.recorded('abort_session', target, () =>
    abortSession(shell.runtime(), target, shell.call()),
  );
  shell.tell(`${aborted.text}\n`);
  return EXIT.failed;
}

/** opencode's title (1.18.33) until the model has named the session. */
const UNNAMED = /^New session - \d{4}-/;

function titleOf(title: string): string {
  return UNNAMED.test(title) ? 'a new session' : JSON.stringify(title);
}

/** A beginning of the id that identifies the session. */
const SESSION_CHARS = 12;

/** The state of the turn and what to type next. */
export function notice(data: TurnView, command: string): string {
  const name = shellWord(data.instance);
  const { session, settled, waiting = [] } = data;
  const where = session === undefined ? '' : `, in ${titleOf(session.title)} (${session.id.slice(0, SESSION_CHARS)})`;
  const lines = [`${quoteName(data.instance)}: ${data.outcome}${where}`];
  if (settled !== undefined) lines.push(settled.replace(/\b(permission|answer) \w+: /g, '$1: '));
  if (data.reason !== undefined) lines.push(data.reason);
  for (const request of waiting) lines.push(`It waits for ${waiting.length === 1 ? withoutId(request) : request}`);
  if (data.also_open_in !== undefined)
    lines.push(
      `The session may also be open in ${data.also_open_in.map((name) => quoteName(name)).join(', ')}, which does not show this.`,
    );
  const exit = exitOf(data.outcome);
  if (exit === EXIT.waiting) lines.push(`Settle it: opencode-mcp respond ${name}`);
  else if (exit === EXIT.running)
    lines.push(`It goes on. Follow it: opencode-mcp wait ${name}. Stop it: opencode-mcp abort ${name}`);
  // Which of a message's choices an OpenCode 2 session keeps.
  else if (data.next !== undefined) lines.push(data.next);
  return `${lines.map((line, index) => (index === 0 ? `opencode-mcp ${command}: ${line}` : `  ${line}`)).join('\n')}\n`;
}

/** The text of a turn on its way to stdout. */
class TurnText {
  readonly #print: (text: string) => void;
  readonly #cleaner = new StreamCleaner();
  #held: string | undefined;
  #last = '\n';
  isEmpty = true;

  constructor(print: (text: string) => void) {
    this.#print = print;
  }

  add(piece: string): void {
    const text = this.#cleaner.add(piece);
    if (text === '') return;
    this.isEmpty = false;
    if (this.#held === undefined) this.#write(text);
    else this.#held += text;
  }

  /** Prints nothing until `release`, while a question is on the screen. */
  hold(): void {
    this.#held ??= '';
  }

  release(): void {
    const text = this.#held ?? '';
    this.#held = undefined;
    if (text !== '') this.#write(text);
  }

  endLine(): void {
    if (this.#last !== '\n') this.#write('\n');
  }

  end(): void {
    const rest = this.#cleaner.end();
    if (rest !== '') this.#write(rest);
    this.endLine();
  }

  #write(text: string): void {
    this.#last = text.at(-1) ?? '\n';
    this.#print(text);
  }
}
