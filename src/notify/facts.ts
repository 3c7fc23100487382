import type { NotifySettings } from '../config/notify.ts';
import { singleLine } from '../base/plain-text.ts';
import type { Followed } from '../model/followed.ts';
import type { Instance, Waiting } from '../model/instance.ts';
import { rootSession, runs, type WatchedSession } from '../model/watched.ts';
import type { WatchedServer } from '../watch/contract.ts';
import { factId, type Notice } from './notice.ts';

/** What was noticed of one server; kept across restarts. All times are ms since the epoch. */
export interface ServerMemory {
  /** When its sessions were last checked. */
  lookedMs: number;
  /** Since when this process's watcher has not listed the server. */
  missingMs?: number;
  /** Root sessions that ran at the last check, by id. */
  readonly runs: Map<string, Run>;
  /** Requests that waited at the last check, by the fact's id. */
  readonly waits: Map<string, Wait>;
}

interface Run {
  /** When the turn began: part of its fact's id. */
  readonly turnMs: number;
  /** Its `stalled` notice was sent. */
  isStalled: boolean;
}

interface Wait {
  readonly notice: Notice;
  /** The `unanswered` notice was sent, or is switched off. */
  isRepeated: boolean;
}

export type Memory = Map<string, ServerMemory>;

export interface FactLook {
  readonly servers: readonly WatchedServer[];
  /** Turns that calls follow, by session. */
  readonly followed: ReadonlyMap<string, Followed>;
  readonly nowMs: number;
  /** Address of the page; undefined without one. */
  readonly linkBase: string | undefined;
}

/** Longer than a rewritten registration or a starting node service takes. */
const GONE_MS = 60_000;
/** A call may see a request this much earlier than the watcher. */
const SEEN_WITHIN_MS = 5_000;
const MAX_TITLE_CHARS = 120;
const MAX_TEXT_CHARS = 1_500;
const MAX_PLACE_CHARS = 300;
/** A push service takes a few kilobytes for a whole notification. */
const MAX_LINK_CHARS = 1_000;

/** Makes notices from what the watcher sees: one per fact (a request, or a turn), under an id that survives a restart. */
export class Facts {
  readonly #settings: Omit<NotifySettings, 'channels'>;
  readonly #host: string;
  readonly #memory: Memory;

  constructor(settings: Omit<NotifySettings, 'channels'>, host: string, memory: Memory) {
    this.#settings = settings;
    this.#host = host;
    this.#memory = memory;
  }

  /** The news since the last call. */
  look(look: FactLook): readonly Notice[] {
    const { servers, nowMs } = look;
    const notices: Notice[] = [];
    for (const server of servers) {
      const memory = this.#memory.get(server.id);
      if (memory !== undefined) delete memory.missingMs;
      if (server.checkedMs !== undefined) notices.push(...this.#lookAt(server, look));
      // While its event stream is down, the only news is that the server ended.
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

  /** When `look` is due without a change, ms since the epoch. A server whose event stream is down is looked at once that is back. */
  nextMs(servers: readonly WatchedServer[]): number {
    const due: number[] = [];
    const { repeatAfterMinutes, stalledAfterMinutes } = this.#settings;
    for (const { missingMs } of this.#memory.values()) if (missingMs !== undefined) due.push(missingMs + GONE_MS);
    for (const server of servers) {
      const memory = this.#memory.get(server.id);
      if (memory === undefined || server.checkedMs === undefined) continue;
      for (const { notice, isRepeated } of memory.waits.values())
        if (!isRepeated && repeatAfterMinutes > 0) due.push(notice.atMs + minutes(repeatAfterMinutes));
      for (const session of server.sessions) {
        const sinceMs = noProgressSinceMs(session, server);
        if (sinceMs !== undefined && memory.runs.get(session.id)?.isStalled === false && stalledAfterMinutes > 0)
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

  /** Settles the requests of a server that ended, and reports its turns as failed: it may have been closed or have crashed. */
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
      return this.#isNoNews(session, run, look) ? [] : this.#ofTurn(session, run, 'failed', seen);
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
        // A caller that follows the turn sees the request itself. If it does nothing, the `unanswered` notice still comes.
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

  /** Only root sessions: a sub-agent's turn is part of its root's. */
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
    if (runs(session)) {
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
    // It began and ended between two checks.
    const isUnseen = turnBeganMs !== undefined && lookedMs !== undefined && turnBeganMs > lookedMs;
    const run = known ?? (isUnseen ? { turnMs: turnBeganMs, isStalled: false } : undefined);
    if (run === undefined || state === 'interrupted') return undefined;
    if (this.#isNoNews(session, run, look)) return undefined;
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

  /** Whether the end of a turn is not worth a notice: the turn was short, or a call followed it to its end or still does. */
  #isNoNews({ id, sinceMs }: WatchedSession, { turnMs }: Run, { followed, nowMs }: FactLook): boolean {
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
  /** When its sessions were checked before; undefined at the first check. */
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

/** Each request with the session that asked and its root session. */
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
