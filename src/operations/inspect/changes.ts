import type { Instance } from '../../model/instance.ts';
import type { OpencodeApi } from '../../opencode/api.ts';
import type { ChangedMessage, FileDiff } from '../../opencode/inspect-schema.ts';
import { pagesBack } from '../../opencode/pages.ts';
import type { Session } from '../../opencode/schema.ts';
import { multiLine, singleLine } from '../../base/plain-text.ts';
import { undoneIn } from '../../turns/turn-messages.ts';
import { type Answer, cutText, OperationError, quoteBlock, quoteName, sessionRef } from '../answer.ts';
import type { Changes } from './inspect-shapes.ts';
import { type Call, connect, type Runtime } from '../runtime.ts';
import { findSession, isMessageId, latestSession, noSuchMessage } from '../sessions/session-query.ts';

const PATCH_CHARS = 2_000;
const MAX_FILES = 20;
/** Of the names of these files. */
const FILES_CHARS = 900;
const MAX_NAME_CHARS = 160;
/** The newest messages that changed something. */
const MAX_MESSAGES = 10;
/** A page of messages includes all tool output. */
const PAGE = 25;
/** Read per session at most; large messages come one by one, so requests are bounded too. */
const MAX_READ = 500;
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
 * The changes of a session, or of one turn, in its directory: opencode's snapshots before and after each step differ by these, and
 * by what others changed meanwhile. Those of a running turn appear when it ends.
 */
export async function getDiff(runtime: Runtime, input: ChangesInput, call: Call): Promise<Answer<Changes>> {
  const connected = await connect(runtime, input.instance, call);
  const { api, instance } = connected;
  const session =
    input.session_id === undefined ? await latestSession(connected) : await findSession(connected, input.session_id);
  if (session === undefined) {
    throw new OperationError(
      `${quoteName(instance.name)} has no session in its directory yet, so there are no changes.`,
    );
  }
  const [{ turns, partial }, statuses, undone] = await Promise.all([
    input.message_id === undefined ? wholeSession(api, session.id) : oneTurn(api, session, input.message_id, instance),
    api.statuses(session.directory),
    undoneIn(api, session),
  ]);
  const standing = turns.filter(({ id }) => input.message_id !== undefined || !undone.has(id));
  const wanted = standing.map(({ id, diffs }) => ({ id, diffs: diffs.filter((diff) => fits(diff, input.path)) }));
  const changed = wanted.filter(({ diffs }) => diffs.length > 0);
  const notes = [
    ...(statuses.has(session.id) ? ['the running turn is included once it ends'] : []),
    ...(partial ? [`only its newest ${turns.length} messages were read`] : []),
  ];
  const data = view(instance.name, session, input, changed, notes);
  return { data, text: render(data, input) };
}

/** The changes of all turns that are not undone, in order; `partial`: only the newest messages were read. */
export async function standingDiffs(
  api: OpencodeApi,
  session: Session,
): Promise<{ readonly diffs: readonly FileDiff[]; readonly partial: boolean }> {
  const [{ turns, partial }, undone] = await Promise.all([wholeSession(api, session.id), undoneIn(api, session)]);
  return { diffs: turns.filter(({ id }) => !undone.has(id)).flatMap(({ diffs }) => diffs), partial };
}

async function wholeSession(api: OpencodeApi, sessionId: string): Promise<{ turns: Turn[]; partial: boolean }> {
  const turns: Turn[] = [];
  const pages = pagesBack((query) => api.changedMessages(sessionId, query), { size: PAGE, most: MAX_PAGES });
  for await (const { messages, olderCursor } of pages) {
    turns.unshift(...messages.map(turnOf));
    if (olderCursor === undefined) return { turns, partial: false };
    if (turns.length >= MAX_READ) break;
  }
  return { turns, partial: true };
}

/** The turn that a message belongs to. */
async function oneTurn(
  api: OpencodeApi,
  session: Session,
  messageId: string,
  instance: Instance,
): Promise<{ turns: Turn[]; partial: boolean }> {
  const named = isMessageId(messageId) ? await api.changedMessage(session.id, messageId) : undefined;
  const parent = named?.info.parentID;
  const message = isMessageId(parent) ? await api.changedMessage(session.id, parent) : named;
  if (message === undefined) {
    const next = 'read shows its messages and their ids, get_diff without message_id the changes of all.';
    throw noSuchMessage(instance, session, messageId, next);
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
    session: sessionRef(session),
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

/** A patch without the lines that repeat the file's name; binary files have none. */
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
