import type { NotifySettings } from '../config/notify.ts';
import { singleLine } from '../base/plain-text.ts';
import type { Followed } from '../model/followed.ts';
import type { Instance, Waiting } from '../model/instance.ts';
import { rootSession, type WatchedSession } from '../model/watched.ts';
import type { WatchedServer } from '../watch/contract.ts';
import { factId, type Notice } from './notice.ts';

/** What of a server was noticed; kept across restarts. All times are ms since the epoch. */
export interface ServerMemory {
  /** When its sessions were last looked at. */
  lookedMs: number;
  /** Since when the watcher does not have it, in this process. */
  missingMs?: number;
  /** Root sessions that ran when they were last looked at, by id. */
  readonly runs: Map<string, Run>;
  /** Requests that waited then, by the fact's id. */
  readonly waits: Map<string, Wait>;
}

interface Run {
  /** When the turn began: what its fact is named by. */
  readonly turnMs: number;
  /** Its `stalled` notice was sent. */
  isStalled: boolean;
}

interface Wait {
  readonly notice: Notice;
  /** It was said once more, or will not be. */
  isRepeated: boolean;
}

export type Memory = Map<string, ServerMemory>;

export interface FactLook {
  readonly servers: readonly WatchedServer[];
  /** By session. */
  readonly followed: ReadonlyMap<string, Followed>;
  readonly nowMs: number;
  /** Of the page; undefined where there is none. */
  readonly linkBase: string | undefined;
}

/** A registration that is written again, or a node service that starts, takes seconds. */
const GONE_MS = 60_000;
/** A call sees that a session waits before its watcher does, by one survey. */
const SEEN_WITHIN_MS = 5_000;
const MAX_TITLE_CHARS = 120;
const MAX_TEXT_CHARS = 1_500;
const MAX_PLACE_CHARS = 300;
/** A push service takes a few kilobytes for all of a notification. */
const MAX_LINK_CHARS = 1_000;

const RUNNING: ReadonlySet<WatchedSession['state']> = new Set(['busy', 'retrying', 'waiting']);

/** Makes facts of what the watcher sees: each once, with an id that does not depend on this process. */
export class Facts {
  readonly #settings: Omit<NotifySettings, 'channels'>;
  readonly #host: string;
  readonly #memory: Memory;

  constructor(settings: Omit<NotifySettings, 'channels'>, host: string, memory: Memory) {
    this.#settings = settings;
    this.#host = host;
    this.#memory = memory;
  }

  /** What is new since the last look. */
  look(look: FactLook): readonly Notice[] {
    const { servers, nowMs } = look;
    const notices: Notice[] = [];
    for (const server of servers) {
      const memory = this.#memory.get(server.id);
      if (memory !== undefined) delete memory.missingMs;
      if (server.checkedMs !== undefined) notices.push(...this.#lookAt(server, look));
      // While its events are missed what was known stands, unless it ended.
      else if (memory !== undefined) notices.push(...this.#ended({ server, look, memory, lookedMs: undefined }));
    }
    const present = new Set(servers.map(({ id }) => id));
    for (const [id, memory] of this.#memory) {
      if (present.has(id)) continue;
      memory.missingMs ??= nowMs;
      if (nowMs - memory.missingMs < GONE_MS) continue;
      for (const { notice } of memory.waits.values()) notices.push(settled(notice, nowMs, 'its opencode ended'));
      this.#memory.delete(id);
    }
    return notices;
  }

  /** When to look again although nothing changes, ms since the epoch. */
  nextMs(servers: readonly WatchedServer[]): number {
    const due: number[] = [];
    const { repeatAfterMinutes, stalledAfterMinutes } = this.#settings;
    for (const { missingMs, waits } of this.#memory.values()) {
      if (missingMs !== undefined) due.push(missingMs + GONE_MS);
      for (const { notice, isRepeated } of waits.values())
        if (!isRepeated && repeatAfterMinutes > 0) due.push(notice.atMs + minutes(repeatAfterMinutes));
    }
    for (const server of servers) {
      for (const session of server.sessions) {
        const run = this.#memory.get(server.id)?.runs.get(session.id);
        const sinceMs = noProgressSinceMs(session, server);
        if (sinceMs !== undefined && run?.isStalled === false && stalledAfterMinutes > 0)
          due.push(sinceMs + minutes(stalledAfterMinutes));
      }
    }
    return Math.min(...due, Number.POSITIVE_INFINITY);
  }

  #lookAt(server: WatchedServer, look: FactLook): readonly Notice[] {
    let memory = this.#memory.get(server.id);
    const lookedMs = memory?.lookedMs;
    if (memory === undefined) {
      memory = { lookedMs: look.nowMs, runs: new Map(), waits: new Map() };
      this.#memory.set(server.id, memory);
    }
    memory.lookedMs = look.nowMs;
    const seen: Seen = { server, look, memory, lookedMs };
    return [...this.#requests(seen), ...this.#turns(seen)];
  }

  /** What ran in a server that ended waits no more. Whether it was closed or crashed is not known, so each of its turns has failed. */
  #ended(seen: Seen): readonly Notice[] {
    const { server, look, memory } = seen;
    const interrupted = new Map(
      server.sessions.filter(({ state }) => state === 'interrupted').map((one) => [one.id, one]),
    );
    const waited = [...memory.waits].flatMap(([id, { notice }]) => {
      const session = interrupted.get(notice.session?.id ?? '');
      if (session === undefined) return [];
      memory.waits.delete(id);
      return settled(notice, look.nowMs, session.reason);
    });
    const ran = [...memory.runs].flatMap(([id, run]) => {
      const session = interrupted.get(id);
      if (session === undefined) return [];
      memory.runs.delete(id);
      return this.#isUnsaid(session, run, look) ? [] : this.#ofTurn(session, run, 'failed', seen);
    });
    return [...waited, ...ran];
  }

  #requests({ server, look, memory }: Seen): readonly Notice[] {
    const notices: Notice[] = [];
    const { nowMs } = look;
    const present = new Set<string>();
    for (const { session, root, request } of requestsOf(server)) {
      const id = factId(server.id, request.sessionId, request.id);
      present.add(id);
      const until = Math.max(...[session.id, root.id].map((one) => look.followed.get(one)?.untilMs ?? 0));
      const known = memory.waits.get(id);
      const notice = { ...this.#about(root, server, look, request), id, event: request.kind, atMs: nowMs };
      if (known === undefined) {
        memory.waits.set(id, { notice, isRepeated: this.#settings.repeatAfterMinutes === 0 });
        // The caller that follows the turn knows of it, and settles it or asks the person; if not, the repetition says it.
        if (until < session.sinceMs - SEEN_WITHIN_MS) notices.push(notice);
      } else if (!known.isRepeated && nowMs >= known.notice.atMs + minutes(this.#settings.repeatAfterMinutes)) {
        known.isRepeated = true;
        notices.push({ ...notice, event: 'unanswered' });
      }
    }
    for (const [id, { notice }] of memory.waits) {
      if (present.has(id)) continue;
      memory.waits.delete(id);
      notices.push(settled(notice, nowMs));
    }
    return notices;
  }

  /** Sub-agents' turns are their root's work. */
  #turns(seen: Seen): readonly Notice[] {
    const { server, memory } = seen;
    const roots = server.sessions.filter(({ parentId }) => parentId === undefined);
    const present = new Set(roots.map(({ id }) => id));
    for (const id of memory.runs.keys()) if (!present.has(id)) memory.runs.delete(id);
    return roots.flatMap((session) => this.#turn(session, seen) ?? []);
  }

  #turn(session: WatchedSession, seen: Seen): Notice | undefined {
    const { look, memory, lookedMs } = seen;
    const { id, state, sinceMs, turnBeganMs } = session;
    const known = memory.runs.get(id);
    if (RUNNING.has(state)) {
      const turnMs = turnBeganMs ?? known?.turnMs ?? sinceMs;
      const run = known?.turnMs === turnMs ? known : { turnMs, isStalled: false };
      memory.runs.set(id, run);
      if (!this.#isStalled(session, run, seen)) return undefined;
      run.isStalled = true;
      return look.followed.get(id)?.untilMs === Number.POSITIVE_INFINITY
        ? undefined
        : { ...this.#ofTurn(session, run, 'stalled', seen), ...(state === 'busy' && { reason: this.#silence }) };
    }
    memory.runs.delete(id);
    // One that began and ended between two looks.
    const isUnseen = turnBeganMs !== undefined && lookedMs !== undefined && turnBeganMs > lookedMs;
    const run = known ?? (isUnseen ? { turnMs: turnBeganMs, isStalled: false } : undefined);
    if (run === undefined || state === 'interrupted') return undefined;
    if (this.#isUnsaid(session, run, look)) return undefined;
    return this.#ofTurn(session, run, state === 'failed' ? 'failed' : 'done', seen);
  }

  #ofTurn(
    session: WatchedSession,
    run: Run,
    event: 'done' | 'failed' | 'stalled',
    { server, look }: Pick<Seen, 'server' | 'look'>,
  ): Notice {
    return {
      ...this.#about(session, server, look),
      id: factId(server.id, session.id, run.turnMs),
      event,
      atMs: look.nowMs,
      ...(session.reason !== undefined && { reason: singleLine(session.reason, MAX_TEXT_CHARS) }),
    };
  }

  /** The end of a turn that is too short to be news, or that a call followed to its end, or follows still. */
  #isUnsaid({ id, sinceMs }: WatchedSession, { turnMs }: Run, { followed, nowMs }: FactLook): boolean {
    const endMs = sinceMs > turnMs ? sinceMs : nowMs;
    if (endMs - turnMs < this.#settings.minTurnSeconds * 1_000) return true;
    const call = followed.get(id);
    return call?.sawEnd === true && call.untilMs >= turnMs;
  }

  #isStalled(session: WatchedSession, { isStalled }: Run, { server, look }: Seen): boolean {
    const { stalledAfterMinutes } = this.#settings;
    const sinceMs = noProgressSinceMs(session, server);
    if (sinceMs === undefined || isStalled || stalledAfterMinutes === 0) return false;
    return look.nowMs - sinceMs >= minutes(stalledAfterMinutes);
  }

  get #silence(): string {
    const { stalledAfterMinutes: count } = this.#settings;
    return `no output for ${count} minute${count === 1 ? '' : 's'}`;
  }

  #about(
    root: WatchedSession,
    { instances }: WatchedServer,
    { linkBase }: FactLook,
    request?: Waiting,
  ): Omit<Notice, 'id' | 'event' | 'atMs'> {
    const instance = instances.find(({ directory }) => directory === root.directory) ?? instances[0];
    const directory = singleLine(root.directory, MAX_PLACE_CHARS);
    return {
      host: singleLine(instance?.host ?? this.#host, MAX_PLACE_CHARS),
      ...(instance && { instance: singleLine(instance.name, MAX_PLACE_CHARS) }),
      ...(directory !== '' && { directory }),
      session: { id: root.id, title: singleLine(root.title, MAX_TITLE_CHARS) },
      ...(request && {
        request: { id: request.id, kind: request.kind, text: singleLine(request.text, MAX_TEXT_CHARS) },
      }),
      ...linkTo(instance, root, linkBase, request),
    };
  }
}

interface Seen {
  readonly server: WatchedServer;
  readonly look: FactLook;
  readonly memory: ServerMemory;
  /** When its sessions were looked at before. */
  readonly lookedMs: number | undefined;
}

/** When a root session began to retry, or when it and its sub-agents last sent an event; undefined unless it works. */
function noProgressSinceMs(root: WatchedSession, { sessions, lastEvents }: WatchedServer): number | undefined {
  if (root.parentId !== undefined) return undefined;
  if (root.state === 'retrying') return root.sinceMs;
  if (root.state !== 'busy') return undefined;
  const byId = new Map(sessions.map((session) => [session.id, session]));
  const team = sessions.filter((one) => rootSession(one, byId) === root);
  // A sub-agent that waits for a person has a notice of its own.
  if (team.some(({ state }) => state === 'waiting')) return undefined;
  return Math.max(root.sinceMs, ...team.map(({ id }) => lastEvents.get(id) ?? 0));
}

/** Each request once, with the session that asked and the root session that it works for. */
function requestsOf({ sessions }: WatchedServer) {
  const byId = new Map(sessions.map((session) => [session.id, session]));
  return sessions.flatMap((session) =>
    session.waiting.map((request) => ({ session, root: rootSession(session, byId), request }) as const),
  );
}

function settled(notice: Notice, nowMs: number, reason?: string): Notice {
  return { ...notice, event: 'settled', atMs: nowMs, ...(reason !== undefined && { reason }) };
}

function linkTo(
  instance: Instance | undefined,
  { id }: WatchedSession,
  base: string | undefined,
  request?: Waiting,
): { readonly link?: string } {
  if (instance === undefined || base === undefined) return {};
  const parts = [instance.name, id, ...(request ? [request.id] : [])].map(encodeURIComponent);
  const link = `${base}/#/s/${parts.join('/')}`;
  return link.length > MAX_LINK_CHARS ? {} : { link };
}

function minutes(count: number): number {
  return count * 60_000;
}
