import type { OpencodeApi } from '../../opencode/api.ts';
import type { ChangedMessage, FileDiff } from '../../opencode/inspect-schema.ts';
import type { Session } from '../../opencode/schema.ts';
import { multiLine, singleLine } from '../../base/plain-text.ts';
import { undoneIn } from '../../turns/turn-messages.ts';
import { type Answer, cutText, OperationError, quoteBlock, quoteName } from '../answer.ts';
import type { Changes } from './inspect-shapes.ts';
import { type Call, connect, type Runtime } from '../runtime.ts';
import { findSession, latestSession } from '../sessions/session-query.ts';

const PATCH_CHARS = 2_000;
const MAX_FILES = 20;
/** Of the names of these. */
const FILES_CHARS = 900;
const MAX_NAME_CHARS = 160;
/** Of the messages that changed something, the newest are named. */
const MAX_MESSAGES = 10;
/** A page of messages comes with all tool output in it. */
const PAGE = 25;
/** A whole session is looked through so far back, and with so many requests: large messages come one by one. */
const MAX_LOOKED_AT = 500;
const MAX_PAGES = 60;

export interface ChangesInput {
  readonly instance: string;
  readonly session_id?: string | undefined;
  readonly message_id?: string | undefined;
  readonly path?: string | undefined;
  readonly offset: number;
}

interface Turn {
  readonly id: string;
  readonly diffs: readonly FileDiff[];
}

/**
 * What a session, or one turn of it, changed in its directory: the difference between the snapshots that opencode takes
 * around each step, so that what others changed meanwhile is in it too. A running turn's comes when it ends.
 */
export async function getDiff(runtime: Runtime, input: ChangesInput, call: Call): Promise<Answer<Changes>> {
  const connected = await connect(runtime, input.instance, call);
  const { api, instance } = connected;
  const session =
    input.session_id === undefined ? await latestSession(connected) : await findSession(connected, input.session_id);
  if (session === undefined) {
    throw new OperationError(
      `${quoteName(instance.name)} has no session in its directory yet, so nothing was changed.`,
    );
  }
  const [{ turns, partial }, statuses, undone] = await Promise.all([
    input.message_id === undefined
      ? wholeSession(api, session.id)
      : oneTurn(api, session, input.message_id, instance.name),
    api.statuses(session.directory),
    undoneIn(api, session),
  ]);
  // What was undone is changed no more.
  const standing = turns.filter(({ id }) => input.message_id !== undefined || !undone.has(id));
  const wanted = standing.map(({ id, diffs }) => ({ id, diffs: diffs.filter((diff) => fits(diff, input.path)) }));
  const changed = wanted.filter(({ diffs }) => diffs.length > 0);
  const notes = [
    ...(statuses.has(session.id) ? ['its running turn is not in it before it ends'] : []),
    ...(partial ? [`only its newest ${turns.length} messages were looked through`] : []),
  ];
  const data = view(instance.name, session, input, changed, notes);
  return { data, text: render(data, input) };
}

/** What the turns of a session changed that stand, in their order; `partial`: only its newest messages were looked through. */
export async function standingDiffs(
  api: OpencodeApi,
  session: Session,
): Promise<{ readonly diffs: readonly FileDiff[]; readonly partial: boolean }> {
  const [{ turns, partial }, undone] = await Promise.all([wholeSession(api, session.id), undoneIn(api, session)]);
  return { diffs: turns.filter(({ id }) => !undone.has(id)).flatMap(({ diffs }) => diffs), partial };
}

async function wholeSession(api: OpencodeApi, sessionId: string): Promise<{ turns: Turn[]; partial: boolean }> {
  const turns: Turn[] = [];
  let before: string | undefined;
  let limit = PAGE;
  for (let page = 0; page < MAX_PAGES && turns.length < MAX_LOOKED_AT; page++) {
    const { messages, olderCursor } = await api.changedMessages(sessionId, { limit, before });
    turns.unshift(...messages.map(turnOf));
    if (olderCursor === undefined) return { turns, partial: false };
    before = olderCursor;
    limit = messages.length < limit ? Math.max(1, messages.length) : Math.min(PAGE, 2 * limit);
  }
  return { turns, partial: true };
}

/** The turn that a message belongs to. */
async function oneTurn(
  api: OpencodeApi,
  session: Session,
  messageId: string,
  name: string,
): Promise<{ turns: Turn[]; partial: boolean }> {
  const known = (id: string | undefined): id is string => id !== undefined && /^msg_[0-9A-Za-z]{8,64}$/.test(id);
  const named = known(messageId) ? await api.changedMessage(session.id, messageId) : undefined;
  const parent = named?.info.parentID;
  const message = known(parent) ? await api.changedMessage(session.id, parent) : named;
  if (message === undefined) {
    throw new OperationError(
      `Session ${session.id} of ${quoteName(name)} has no message ${JSON.stringify(singleLine(messageId, 80))}; read shows its messages and their ids, get_diff without message_id what all of them changed.`,
    );
  }
  return { turns: [turnOf(message)], partial: false };
}

function turnOf({ info: { id, summary } }: ChangedMessage): Turn {
  return { id, diffs: typeof summary === 'object' ? summary.diffs : [] };
}

function fits({ file }: FileDiff, path: string | undefined): boolean {
  if (path === undefined) return true;
  const wanted = path.replace(/^\.\//, '').replace(/\/+$/, '');
  return file === wanted || file?.startsWith(`${wanted}/`) === true;
}

function view(
  instance: string,
  session: Session,
  input: ChangesInput,
  turns: readonly Turn[],
  notes: readonly string[],
): Changes {
  const files = summed(turns);
  const patches = turns.flatMap(({ diffs }) => diffs.map(patchOf)).join('\n');
  const { text: patch, cut } = cutText(multiLine(patches, Number.MAX_SAFE_INTEGER), PATCH_CHARS, input.offset);
  return {
    instance,
    session: { id: session.id, title: singleLine(session.title, 100) },
    ...(input.message_id !== undefined && { message_id: singleLine(input.message_id, 80) }),
    files: shown(files),
    total: files.length,
    ...(input.message_id === undefined &&
      turns.length > 0 && { messages: turns.slice(-MAX_MESSAGES).map(({ id }) => id) }),
    ...(notes.length > 0 && { note: notes.join('; ') }),
    patch,
    ...(cut !== undefined && { cut }),
  };
}

function shown(files: Changes['files']): Changes['files'] {
  let chars = 0;
  const over = files.findIndex(({ file }) => (chars += file.length) > FILES_CHARS);
  return files.slice(0, over === -1 ? MAX_FILES : Math.max(1, Math.min(over, MAX_FILES)));
}

/** A patch without the lines that repeat the file's name; a file that is not text has none. */
function patchOf({ file, patch, status }: FileDiff): string {
  const body = patch.replace(/^Index: [^\n]*\n=+\n/, '').trimEnd();
  return body === '' ? `(${quoteName(file ?? 'a file')}: ${status ?? 'changed'}, no text)` : body;
}

/** A row for each file, over all turns. */
function summed(turns: readonly Turn[]): Changes['files'] {
  const rows = new Map<string, Changes['files'][number]>();
  for (const diff of turns.flatMap(({ diffs }) => diffs)) {
    const name = diff.file ?? '(unnamed)';
    const status = diff.status ?? 'modified';
    const row = rows.get(name);
    rows.set(name, {
      file: singleLine(name, MAX_NAME_CHARS),
      status: row === undefined ? status : joined(row.status, status),
      additions: (row?.additions ?? 0) + diff.additions,
      deletions: (row?.deletions ?? 0) + diff.deletions,
    });
  }
  return [...rows.values()];
}

function joined(before: string, now: string): string {
  if (now === 'deleted') return before === 'added' ? 'added and deleted' : 'deleted';
  if (before === 'added' || before === 'added and deleted') return 'added';
  return before === 'deleted' ? 'modified' : now;
}

function render(data: Changes, input: ChangesInput): string {
  const turn = data.message_id === undefined ? '' : `, message ${data.message_id}`;
  const head = `${quoteName(data.instance)}, session ${data.session.id} ${JSON.stringify(data.session.title)}${turn}`;
  const note = data.note === undefined ? [] : [`(${data.note})`];
  if (data.total === 0) {
    const where = input.path === undefined ? '' : ` in ${JSON.stringify(singleLine(input.path, 200))}`;
    return [`${head}: no changes${where}`, ...note].join('\n');
  }
  const rows = data.files.map((row) => `${row.file} ${row.status} +${row.additions} -${row.deletions}`);
  const left = data.total - data.files.length;
  if (left > 0) rows.push(`and ${left} more`);
  const lines = [`${head}: ${data.total} files changed`, quoteBlock(rows.join('\n')), ...note];
  if (data.messages !== undefined) lines.push(`changed by the turns of: ${data.messages.join(', ')}`);
  if (data.patch !== '') lines.push(quoteBlock(data.patch));
  if (data.cut !== undefined) {
    lines.push(
      `(not all: ${data.cut.total} characters of patch; to go on: get_diff again with offset ${data.cut.next_offset}; or with path for one file, message_id for one turn)`,
    );
  }
  return lines.join('\n');
}
