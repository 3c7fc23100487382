import type { IncomingMessage, ServerResponse } from 'node:http';
import type * as z from 'zod';

import type { Clock } from '../base/clock.ts';
import { jsonOf } from '../base/errors.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { Logger } from '../base/log.ts';
import { singleLine } from '../base/plain-text.ts';
import { Quota } from '../http/quota.ts';
import { VERSION } from '../base/version.ts';
import type { RecordEntry } from '../operations/call-record.ts';
import type { Call, Runtime } from '../operations/runtime.ts';
import { abortHere, abortSchema, type Acted, respondHere, respondSchema, sendHere, sendSchema } from './actions.ts';
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

/** A page has two; several devices, and tabs that a browser keeps in the background. */
const MAX_STREAMS_PER_CALLER = 12;
/** Each holds an event stream to an instance, and the messages of a session. */
const MAX_STREAMS = 60;
const MAX_BODY_BYTES = 512 * 1024;
/** A cold instance takes seconds; whoever waits longer would rather see why. */
const CALL_LIMIT_MS = 45_000;

export interface PageServerDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly record: (entry: RecordEntry) => void;
}

/** One request to the page, of a caller who was let in. */
export interface PageVisit {
  readonly target: PageTarget;
  readonly caller: PageCaller;
  /** The page's own, as a browser names it. */
  readonly origin: string;
  /** What the caller sees; the function gives it back. */
  readonly open: () => Promise<PageView & { readonly release: () => void }>;
  /** Aborts when the caller goes, or is cut. */
  readonly signal: AbortSignal;
}

type DataTarget = Extract<PageTarget, { readonly data: string }>;

/** Serves the page and its data: by the node service to whom it admits, by `opencode-mcp dashboard` to one browser of this user. */
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
      if (method !== 'GET' && method !== 'HEAD') throw new PageRefusal(405, 'The page is read with GET.');
      await answerFile(response, target.file, method === 'HEAD');
      return;
    }
    if (request.headers[PAGE_HEADER] !== '1')
      throw new PageRefusal(
        403,
        `Data of the page comes with the header ${PAGE_HEADER}: 1, so that no other page can ask for it.`,
      );
    const isAction = ['respond', 'send', 'abort'].includes(target.data);
    if (method !== (isAction ? 'POST' : 'GET'))
      throw new PageRefusal(405, `${target.data} is asked with ${isAction ? 'POST' : 'GET'}.`);
    if (isAction) await this.#act(request, response, { ...visit, target });
    else if (target.data === 'changes') await this.#changes(response, { ...visit, target });
    else await this.#stream(response, { ...visit, target });
  }

  async #stream(response: ServerResponse, visit: PageVisit & { readonly target: DataTarget }): Promise<void> {
    const { caller, signal, target } = visit;
    const leave = this.#perCaller.take(caller.name);
    const leaveAll = this.#total.take('');
    let view: Awaited<ReturnType<PageVisit['open']>> | undefined;
    try {
      if (leave === undefined || leaveAll === undefined)
        throw new PageRefusal(429, 'Too many pages are open here. Close some, then load this one again.');
      view = await visit.open();
      const query = new URLSearchParams(target.query);
      if (target.data === 'fleet') await this.#fleet(response, view, visit);
      else {
        const place = await findPlace(view, placeIn(query), caller, { signal, deadlineMs: Number.POSITIVE_INFINITY });
        const stream = new LineStream(response, this.#deps.clock, signal);
        const before = query.get('before');
        if (before !== null) await sendOlder(stream, place, before);
        else await streamSession(place, { stream, clock: this.#deps.clock, signal, canDrive: caller.role === 'drive' });
        stream.end();
      }
    } finally {
      view?.release();
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

  async #changes(response: ServerResponse, visit: PageVisit & { readonly target: DataTarget }): Promise<void> {
    const place = placeIn(new URLSearchParams(visit.target.query));
    const view = await visit.open();
    try {
      const found = await findPlace(view, place, visit.caller, this.#call(visit.signal));
      // Whether OpenCode 2 loads the directory for it is not known.
      if (visit.caller.isGuest === true && found.connected.dialect !== 'opencode-1')
        throw new PageRefusal(403, 'Your role here is "read"; what an OpenCode 2 changed takes the role "drive".');
      answerJson(response, 200, await pageChanges(found));
    } finally {
      view.release();
    }
  }

  async #act(
    request: IncomingMessage,
    response: ServerResponse,
    visit: PageVisit & { readonly target: DataTarget },
  ): Promise<void> {
    const { caller, target } = visit;
    if (request.headers.origin?.toLowerCase() !== visit.origin.toLowerCase())
      throw new PageRefusal(403, 'Only this page’s own requests are served.');
    if (!/^application\/json(?:\s*;|$)/i.test(request.headers['content-type'] ?? ''))
      throw new PageRefusal(415, 'The body must be application/json.');
    if (caller.role !== 'drive')
      throw new PageRefusal(
        403,
        'Your role here is "read": you can look, and not act. Whoever runs this machine can grant "drive".',
      );
    const body = jsonOf(await readBody(request));
    const over = new LinkedAbort(visit.signal);
    const call = this.#call(over.signal);
    const view = await visit.open();
    try {
      const acted = await this.#acting(target.data, body, { view, caller, call });
      this.#record(visit, acted);
      answerJson(response, 200, acted.body);
    } catch (error) {
      if (!(error instanceof PageRefusal && error.status === 400)) this.#record(visit, failedOf(body));
      throw error;
    } finally {
      over.end();
      view.release();
    }
  }

  async #acting(
    what: DataTarget['data'],
    body: unknown,
    { view, caller, call }: { readonly view: PageView; readonly caller: PageCaller; readonly call: Call },
  ): Promise<Acted> {
    if (what === 'respond') return await respondHere(view, checked(respondSchema, body), caller, call);
    if (what === 'send') return await sendHere(view, checked(sendSchema, body), caller, call);
    return await abortHere(view, checked(abortSchema, body), caller, call);
  }

  #call(signal: AbortSignal): Call {
    return { signal, deadlineMs: this.#deps.clock.monotonic() + CALL_LIMIT_MS, onProgress: () => {} };
  }

  #record({ caller, target }: PageVisit, { instance, session, outcome }: Omit<Acted, 'body'>): void {
    this.#deps.record({
      client: { name: `page: ${caller.name}`, version: VERSION },
      tool: 'data' in target ? target.data : '',
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
    // The head of a stream is out: the last line says why it ends.
    if (response.headersSent) response.end(`${JSON.stringify({ kind: 'error', text })}\n`);
    else answerJson(response, status, { error: text });
  }
}

function placeIn(query: URLSearchParams): PlaceAsked {
  const [instance, session] = [query.get('instance'), query.get('session')];
  if (instance === null || session === null) throw new PageRefusal(400, 'instance and session are needed.');
  return { instance, session };
}

function checked<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const { path = [], message = '' } = parsed.error.issues[0] ?? {};
  throw new PageRefusal(400, `The body does not fit: ${singleLine(`${path.map(String).join('.')}: ${message}`, 200)}`);
}

/** Where it cannot be known what was resolved. */
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
