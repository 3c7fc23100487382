import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { openRegistry } from '../rig/registry.ts';
import { until } from '../rig/wait.ts';
import { HANDSHAKE, startRawServer, type RawServer } from './raw-server.ts';

/** During a flood the process grows by at most 70 MB, or by more than 100 if the event feed or the transcript has no bound. */
const MAX_GROWTH_MB = 90;
const FLOOD_BYTES = 50_000_000;
/** Ends the flood if the other instance gets no request during it. */
const MAX_FLOOD_BYTES = 500_000_000;

type Turn = Awaited<ReturnType<typeof startFollowedTurn>>;

const call = (id: number, name: string, args: object): object => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: args, _meta: { progressToken: id } },
});

const SEND = 1;
const OTHER = 2;

/** A server that follows a turn of the instance "one" with an open part. There is also an instance "two". */
async function startFollowedTurn() {
  const opencode = await startFakeOpencode();
  const other = await startFakeOpencode({ directory: '/home/user/other' });
  const server = startRawServer();
  onTestFinished(async () => {
    await server[Symbol.asyncDispose]();
    await opencode.close();
    await other.close();
  });
  const registry = await openRegistry(join(server.home, 'registry'));
  await registry.add({ name: 'one', port: opencode.port });
  await registry.add({ name: 'two', port: other.port, cwd: other.directory });
  const { id: sessionID } = opencode.addSession();
  server.write(...HANDSHAKE, call(SEND, 'send', { instance: 'one', session_id: sessionID, message: 'go' }));
  const messageID = await until('the turn', () =>
    opencode.state.prompts.length === 0 ? undefined : opencode.state.messages.get(sessionID)?.at(-1)?.info.id,
  );
  const partID = 'prt_flood';
  opencode.emit('message.part.updated', {
    sessionID,
    part: { ...textPart(messageID, partID, ''), time: { start: 1 } },
  });
  return { server, opencode, sessionID, messageID, partID, memoryMb: await peakMemoryMb(server.pid) };
}

const textPart = (messageID: string, id: string, text: string) =>
  ({ id, messageID, type: 'text', text, time: { start: 1, end: 2 } }) as const;

/** Ends the turn and stores `parts` as its answer. */
function finish({ opencode, sessionID }: Turn, parts: readonly ReturnType<typeof textPart>[]): void {
  const messages = opencode.state.messages.get(sessionID) ?? [];
  const { info } = messages.at(-1) ?? {};
  if (info === undefined) throw new Error('no turn was begun');
  const endedInfo = { ...info, finish: 'stop', time: { created: info.time.created, completed: Date.now() } };
  messages[messages.length - 1] = { info: endedInfo, parts: parts.map((part) => ({ ...part, sessionID })) };
  opencode.state.statuses.delete(sessionID);
  for (const part of parts) opencode.emit('message.part.updated', { sessionID, part });
  opencode.emit('message.updated', { sessionID, info: endedInfo });
  opencode.emit('session.status', { sessionID, status: { type: 'idle' } });
}

async function peakMemoryMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

function progressOf({ stdout }: RawServer): readonly string[] {
  return stdout
    .map((line) => JSON.parse(line) as { readonly method?: string; readonly params?: { readonly message?: string } })
    .flatMap(({ method, params }) => (method === 'notifications/progress' ? [params?.message ?? ''] : []));
}

const line = (type: string, properties: object): string => `data: ${JSON.stringify({ type, properties })}\n\n`;

/** Events that are sent repeatedly, and the text that they add to the part. */
type FloodKind = (turn: Turn, count: number) => { readonly events: string; readonly text?: string };

const delta = ({ sessionID, messageID, partID }: Turn, text: string): string =>
  line('message.part.delta', { sessionID, messageID, partID, field: 'text', delta: text });

const KINDS: Readonly<Record<string, FloodKind>> = {
  'many small deltas': (turn, count) => {
    const words = Array.from({ length: 100 }, (_, index) => `${count}.${index} `);
    return { events: words.map((word) => delta(turn, word)).join(''), text: words.join('') };
  },
  'huge deltas': (turn, count) => {
    // The store's answer is limited to 8 MB; later text goes to another part.
    const text = `${count} ${'€'.repeat(500_000)}`;
    return count < 4 ? { events: delta(turn, text), text } : { events: delta({ ...turn, partID: 'prt_other' }, text) };
  },
  'permission requests of other sessions, whose parents must be read': (_, count) => {
    const permissions = Array.from({ length: 100 }, (__, index) => {
      const id = `${count}_${index}`;
      return { id: `per_${id}`, sessionID: `ses_other${id}`, permission: 'bash', patterns: ['x'], always: [] };
    });
    return { events: permissions.map((one) => line('permission.asked', one)).join('') };
  },
  'status changes that each make the server read the store': ({ sessionID }) => {
    const [busy, idle] = ['busy', 'idle'].map((type) => line('session.status', { sessionID, status: { type } }));
    return { events: `${busy}${idle}`.repeat(100) };
  },
};

describe.skipIf(process.platform !== 'linux').each(Object.entries(KINDS))('a flood of %s', (_, kind) => {
  test('takes bounded memory, and neither blocks other instances nor truncates the answer', async () => {
    const turn = await startFollowedTurn();
    const { server, opencode, messageID, partID } = turn;
    let text = '';
    let bytes = 0;
    let count = 0;
    let isOtherAnswered = false;
    server.write(call(OTHER, 'list_sessions', { instance: 'two' }));
    const other = server.answerTo(OTHER).then(() => (isOtherAnswered = true));
    await opencode.flood(() => {
      if (bytes > MAX_FLOOD_BYTES || (bytes > FLOOD_BYTES && isOtherAnswered)) return undefined;
      const next = kind(turn, count);
      count += 1;
      bytes += next.events.length;
      text += next.text ?? '';
      return next.events;
    });
    expect(isOtherAnswered).toBe(true);
    await other;
    text += 'the end';
    finish(turn, [textPart(messageID, partID, text)]);
    const { result } = await server.answerTo(SEND);
    const { outcome, text: shown } = (result ?? {})['structuredContent'] as {
      readonly outcome: string;
      readonly text: string;
    };
    expect(outcome).toBe('completed');
    expect(shown.startsWith(text.slice(0, 1_000))).toBe(true);
    expect(shown.endsWith(text.slice(-1_000))).toBe(true);
    expect((await peakMemoryMb(server.pid)) - turn.memoryMb).toBeLessThan(MAX_GROWTH_MB);
    // In order and nothing twice, even if some was dropped. The end of a notification may be cut off.
    let from = 0;
    for (const message of progressOf(server)) {
      const said = message.replace(/…$/, '');
      const at = text.indexOf(said, from);
      expect(at, `${JSON.stringify(said.slice(0, 40))} comes at or after ${from}`).toBeGreaterThanOrEqual(0);
      from = at + said.length;
    }
  });
});

test.skipIf(process.platform !== 'linux')(
  'a client that does not read gets the answer once it reads; until then progress does not pile up',
  async () => {
    const turn = await startFollowedTurn();
    const { server, opencode, messageID, partID } = turn;
    server.pauseOutput();
    let text = '';
    let count = 0;
    await opencode.flood(() => {
      if (count > 5_000) return undefined;
      const words = Array.from({ length: 20 }, (_, index) => `${count}.${index} ${'.'.repeat(60)}`);
      count += 1;
      text += words.join('');
      return words.map((word) => delta(turn, word)).join('');
    });
    finish(turn, [textPart(messageID, partID, text)]);
    const record = join(server.home, '.local', 'state', 'opencode-mcp', 'record.jsonl');
    await until('the end of the turn', async () =>
      (await readFile(record, 'utf8').catch(() => '')).includes('completed'),
    );
    server.resumeOutput();
    const { result } = await server.answerTo(SEND);
    expect(result?.['structuredContent']).toMatchObject({ outcome: 'completed' });
    expect((await peakMemoryMb(server.pid)) - turn.memoryMb).toBeLessThan(MAX_GROWTH_MB);
    // Some notifications fill the pipe, and two wait.
    expect(progressOf(server).join('').length).toBeLessThan(text.length / 10);
  },
);
