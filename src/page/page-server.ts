import type { IncomingMessage, ServerResponse } from 'node:http';

import type { Clock } from '../base/clock.ts';
import { jsonOf } from '../base/errors.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { Logger } from '../base/log.ts';
import { Quota } from '../http/quota.ts';
import { VERSION } from '../base/version.ts';
import type { RecordEntry } from '../operations/call-record.ts';
import type { Call, Runtime } from '../operations/runtime.ts';
import { type Acted, ACTIONS, type PageAction } from './actions.ts';
import { answerFile } from './assets.ts';
import { pageChanges } from './session/changes.ts';
import { PAGE_HEADER, type PageCaller, PageRefusal, type PageView } from './contract.ts';
import { FleetFeed } from './fleet/fleet-feed.ts';
import { streamFleet } from './fleet/fleet-stream.ts';
import { findPlace, type PlaceAsked } from './session/find-session.ts';
import { answerJson, refusalOf } from './json-answer.ts';
import { LineStream } from './line-stream.ts';
import { sendOlder, streamSession } from './session/session-stream.ts';
import type { PageTarget } from './target.ts';

/** A page has two; a person may have several devices and background tabs. */
const MAX_STREAMS_PER_CALLER = 12;
/** Each holds an event stream to an instance and the messages of a session. */
const MAX_STREAMS = 60;
const MAX_BODY_BYTES = 512 * 1024;
/** A cold instance takes seconds; after this time a person would rather see the reason. */
const CALL_LIMIT_MS = 45_000;

export interface PageServerDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly record: (entry: RecordEntry) => void;
}

/** One request to the page from an admitted caller. */
export interface PageVisit {
  readonly target: PageTarget;
  readonly caller: PageCaller;
  /** The page's own origin, as a browser sends it. */
  readonly origin: string;
  /** What the caller sees. `release` must be called once. */
  readonly open: () => Promise<PageView & { readonly release: () => void }>;
  /** Aborts when the caller leaves or is cut off. */
  readonly signal: AbortSignal;
}

type DataVisit = PageVisit & { readonly target: Extract<PageTarget, { readonly data: string }> };

/** Serves the page and its data. The node service uses it for callers it admits, `opencode-mcp dashboard` for one browser of this user. */
export class PageServer {
  readonly #deps: PageServerDeps;
  readonly #feeds = new WeakMap<Runtime, FleetFeed>();
  readonly #perCaller = new Quota(MAX_STREAMS_PER_CALLER);
  readonly #total = new Quota(MAX_STREAMS);

  constructor(deps: PageServerDeps) {
    this.#deps = deps;
  }

  /** Never rejects. */
  async answer(request: IncomingMessage, response: ServerResponse, visit: PageVisit): Promise<void> {
    const cut = (): void => void response.destroy();
    visit.signal.addEventListener('abort', cut, { once: true });
    if (visit.signal.aborted) cut();
    try {
      visit.signal.throwIfAborted();
      await this.#answer(request, response, visit);
    } catch (error) {
      if (!visit.signal.aborted) this.#refuse(response, error);
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse, visit: PageVisit): Promise<void> {
    const { method = '' } = request;
    const { target } = visit;
    if ('file' in target) {
      if (method !== 'GET' && method !== 'HEAD') throw new PageRefusal(405, 'The page takes GET only.');
      await answerFile(response, target.file, method === 'HEAD');
      return;
    }
    if (request.headers[PAGE_HEADER] !== '1')
      throw new PageRefusal(403, `The header ${PAGE_HEADER}: 1 is missing, which pages of other sites cannot send.`);
    const visiting = { ...visit, target };
    const act = ACTIONS.get(target.data);
    const expected = act === undefined ? 'GET' : 'POST';
    if (method !== expected) throw new PageRefusal(405, `${target.data} takes ${expected} only.`);
    if (act !== undefined) await this.#act(request, response, visiting, act);
    else if (target.data === 'changes') await this.#changes(response, visiting);
    else await this.#stream(response, visiting);
  }

  async #stream(response: ServerResponse, visit: DataVisit): Promise<void> {
    const { clock } = this.#deps;
    const { caller, signal, target } = visit;
    const leave = this.#perCaller.take(caller.name);
    const leaveAll = this.#total.take('');
    try {
      if (leave === undefined || leaveAll === undefined)
        throw new PageRefusal(429, 'Too many pages are open here. Close some, then load this one again.');
      await withView(visit, async (view) => {
        const query = new URLSearchParams(target.query);
        if (target.data === 'fleet') return await this.#fleet(response, view, visit);
        const place = await findPlace(view, placeIn(query), caller, { signal, deadlineMs: Number.POSITIVE_INFINITY });
        const stream = new LineStream(response, clock, signal);
        const before = query.get('before');
        if (before !== null) await sendOlder(stream, place, before);
        else await streamSession(place, { stream, clock, signal, canDrive: caller.role === 'drive' });
        stream.end();
      });
    } finally {
      leaveAll?.();
      leave?.();
    }
  }

  async #fleet(response: ServerResponse, view: PageView, { caller, signal }: PageVisit): Promise<void> {
    const { clock } = this.#deps;
    const feed = this.#feeds.get(view.runtime) ?? new FleetFeed(view.runtime);
    this.#feeds.set(view.runtime, feed);
    await streamFleet(new LineStream(response, clock, signal), { feed, clock, signal }, caller, view);
  }

  async #changes(response: ServerResponse, visit: DataVisit): Promise<void> {
    const { caller, signal, target } = visit;
    const place = placeIn(new URLSearchParams(target.query));
    await withView(visit, async (view) => {
      const found = await findPlace(view, place, caller, this.#call(signal));
      // It is unknown whether OpenCode 2 loads the directory for this.
      if (caller.isGuest === true && found.connected.dialect !== 'opencode-1')
        throw new PageRefusal(403, 'Your role here is "read"; what an OpenCode 2 changed takes the role "drive".');
      answerJson(response, 200, await pageChanges(found));
    });
  }

  async #act(request: IncomingMessage, response: ServerResponse, visit: DataVisit, act: PageAction): Promise<void> {
    const { caller, origin, signal } = visit;
    if (request.headers.origin?.toLowerCase() !== origin.toLowerCase())
      throw new PageRefusal(403, 'Only this page’s own requests are served.');
    if (!/^application\/json(?:\s*;|$)/i.test(request.headers['content-type'] ?? ''))
      throw new PageRefusal(415, 'The body must be application/json.');
    if (caller.role !== 'drive')
      throw new PageRefusal(
        403,
        'Your role here is "read": you can look, and not act. Whoever runs this machine can grant "drive".',
      );
    const body = jsonOf(await readBody(request));
    const over = new LinkedAbort(signal);
    const call = this.#call(over.signal);
    await withView(visit, async (view) => {
      try {
        const acted = await act(view, body, caller, call);
        this.#record(visit, acted);
        answerJson(response, 200, acted.body);
      } catch (error) {
        if (!(error instanceof PageRefusal && error.status === 400)) this.#record(visit, failedOf(body));
        throw error;
      } finally {
        over.end();
      }
    });
  }

  #call(signal: AbortSignal): Call {
    return { signal, deadlineMs: this.#deps.clock.monotonic() + CALL_LIMIT_MS, onProgress: () => {} };
  }

  #record({ caller, target }: DataVisit, { instance, session, outcome }: Omit<Acted, 'body'>): void {
    this.#deps.record({
      client: { name: `page: ${caller.name}`, version: VERSION },
      tool: target.data,
      instances: [instance],
      session: session === '' ? undefined : session,
      outcome,
    });
  }

  #refuse(response: ServerResponse, error: unknown): void {
    const { status, text } = refusalOf(error);
    if (status === 500)
      this.#deps.logger.log(
        'error',
        `page: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
    // The head of a stream is sent, so its last line gives the reason.
    if (response.headersSent) response.end(`${JSON.stringify({ kind: 'error', text })}\n`);
    else answerJson(response, status, { error: text });
  }
}

function placeIn(query: URLSearchParams): PlaceAsked {
  const [instance, session] = [query.get('instance'), query.get('session')];
  if (instance === null || session === null) throw new PageRefusal(400, 'instance and session are needed.');
  return { instance, session };
}

async function withView<T>({ open }: PageVisit, work: (view: PageView) => Promise<T>): Promise<T> {
  const { release, ...view } = await open();
  try {
    return await work(view);
  } finally {
    release();
  }
}

/** For an action that failed: the names as they were sent. */
function failedOf(body: unknown): Omit<Acted, 'body'> {
  const { instance = '', session = '' } = (typeof body === 'object' && body !== null ? body : {}) as Readonly<
    Record<string, unknown>
  >;
  return { instance: String(instance), session: typeof session === 'string' ? session : '', outcome: 'failed' };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) throw new PageRefusal(413, `The body has more than ${MAX_BODY_BYTES} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
