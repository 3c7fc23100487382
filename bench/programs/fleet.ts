/**
 * Fake opencodes in a separate process, so that they take no time from the measured one. Its only argument is `FleetOptions` as
 * JSON. Requests are counted on arrival.
 */
import { createServer, type AddressInfo } from 'node:net';

import { FAKE_ROUTES, type FakeRoute } from '../../test/rig/fake/fake-http.ts';
import { assistantMessage, newId, userMessage } from '../../test/rig/fake/fake-objects.ts';
import { type FakeOpencode, startFakeOpencode } from '../../test/rig/fake/fake-opencode.ts';
import { until } from '../../test/rig/wait.ts';
import { type FakeService, startFakeService } from './fake-service.ts';
import { BusyInstances } from './busy-instances.ts';
import { serveOrders } from './orders.ts';

export interface FleetOptions {
  readonly live: number;
  /** Ports that accept connections and never answer. */
  readonly silent?: number;
  /** OpenCode 2, each with one session in a directory; default 1. */
  readonly generation?: 1 | 2;
  /** How long each answer to `GET /global/health` takes; default 0. */
  readonly healthMs?: number;
}

export interface FleetPorts {
  readonly live: readonly number[];
  readonly silent: readonly number[];
}

/** `Fleet` in `stage.ts` describes them. */
export type FleetOrder =
  | { readonly order: 'count' | 'surveyed' | 'prompted' | 'hush' | 'change' }
  | { readonly order: 'token' | 'finish'; readonly text: string }
  | { readonly order: 'speak'; readonly instances: number; readonly everyMs: number };

/** Words emitted. */
export interface FleetWords {
  readonly words: number;
}

export interface FleetCounts {
  readonly requests: number;
  readonly byRoute: Readonly<Record<string, number>>;
  /** Most instances with an open request at the same time. */
  readonly instancesAtOnce: number;
}

/** When it was sent, in ns of the monotonic clock that all processes share. */
export interface FleetToken {
  readonly atNs: string;
}

const options = JSON.parse(process.argv[2] ?? '{}') as FleetOptions;
const busy = new BusyInstances();
const fakes: FakeOpencode[] = [];
const services: FakeService[] = [];
for (let index = 0; index < options.live; index += 1)
  if (options.generation === 2) services.push(await startFakeService(index));
  else fakes.push(await start(index));
const silent = await Promise.all(Array.from({ length: options.silent ?? 0 }, listenSilently));
const ports: FleetPorts = { live: [...fakes, ...services].map(({ port }) => port), silent };
const counted = new Map<string, number>();
/** Per instance, since the last `count`. */
let sessionsAsked: readonly number[] = [];
let promptsSeen = 0;
let servicesCounted = 0;
let speaking: NodeJS.Timeout | undefined;
let words = 0;
/** Poll interval of an order that waits. */
const POLL_MS = 1;

await serveOrders(ports, async (line) => {
  const order = line as FleetOrder;
  switch (order.order) {
    case 'count':
      return count();
    case 'surveyed':
      await holds(() =>
        fakes.every((fake, index) => fake.count('GET /experimental/session') > (sessionsAsked[index] ?? 0)),
      );
      return {};
    case 'prompted':
      await holds(() => first().state.prompts.length > promptsSeen);
      promptsSeen = first().state.prompts.length;
      return {};
    case 'token':
      return say(first(), order.text);
    case 'finish':
      first().state.finish(promptedSession(first()), order.text);
      return {};
    case 'speak':
      return speak(order.instances, order.everyMs);
    case 'hush':
      clearInterval(speaking);
      for (const { state } of fakes) for (const id of state.statuses.keys()) state.finish(id, 'Done.');
      return { words } satisfies FleetWords;
    case 'change':
      return change();
  }
});
process.exit(0);

async function start(index: number): Promise<FakeOpencode> {
  const fake = await startFakeOpencode({ directory: `/home/user/project-${index}`, load: busy.gauge() });
  const session = fake.addSession({ title: `Session of ${index}` });
  if (index === 0) addWork(fake, session.id);
  if (options.healthMs !== undefined) fake.override('GET /global/health', { kind: 'delay', ms: options.healthMs });
  return fake;
}

/** More files and changes than the inspect tools can show. */
function addWork({ state }: FakeOpencode, sessionID: string): void {
  const names = Array.from({ length: 300 }, (_, number) => `src/a-folder/some-file-${number}.ts`);
  for (const name of names) state.files.set(name, `export const value = "needle";\n`.repeat(500));
  const message = userMessage(sessionID, 'Change them all');
  const patch = '@@ -1 +1 @@\n-export const value = "old";\n+export const value = "needle";';
  const diffs = names.map((file) => ({ file, patch, additions: 1, deletions: 1, status: 'modified' }));
  const answer = assistantMessage(sessionID, message.info.id, state.directory);
  const completed = { ...answer.info.time, completed: Date.now() };
  state.messages
    .get(sessionID)
    ?.push(
      { ...message, info: { ...message.info, summary: { diffs } } },
      { ...answer, info: { ...answer.info, time: completed, finish: 'stop' } },
    );
}

/** Accepts and never reads. */
async function listenSilently(): Promise<number> {
  const server = createServer((socket) => socket.on('error', () => {}));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

function count(): FleetCounts {
  const byRoute: Record<string, number> = {};
  let requests = 0;
  for (const route of [...FAKE_ROUTES, 'other'] as readonly (FakeRoute | 'other')[]) {
    const total = fakes.reduce((sum, fake) => sum + fake.count(route), 0);
    const fresh = total - (counted.get(route) ?? 0);
    counted.set(route, total);
    requests += fresh;
    if (fresh > 0) byRoute[route] = fresh;
  }
  const ofServices = services.reduce((sum, { requests: all }) => sum + all, 0);
  requests += ofServices - servicesCounted;
  servicesCounted = ofServices;
  sessionsAsked = fakes.map((fake) => fake.count('GET /experimental/session'));
  return { requests, byRoute, instancesAtOnce: busy.takeMax() };
}

/** As long as it takes: the bench gives up on its side. */
async function holds(condition: () => boolean): Promise<void> {
  await until('an order', condition, Infinity, POLL_MS);
}

function first(): FakeOpencode {
  const [fake] = fakes;
  if (fake === undefined) throw new Error('Expected a live instance, got none');
  return fake;
}

function promptedSession({ state }: FakeOpencode): string {
  const sessionID = state.prompts.at(-1)?.sessionID ?? [...state.sessions.keys()][0];
  if (sessionID === undefined) throw new Error('Expected a session, got none');
  return sessionID;
}

function speak(instances: number, everyMs: number): object {
  const speakers = fakes.slice(0, instances).map(({ state }) => {
    const [id = ''] = state.sessions.keys();
    state.begin(id, 'Speak');
    return () => state.say(id, 'a word ');
  });
  words = 0;
  speaking = setInterval(() => {
    for (const say of speakers) say();
    words += speakers.length;
  }, everyMs);
  return {};
}

function change(): FleetToken {
  const fake = fakes.at(-1);
  const [id] = fake?.state.sessions.keys() ?? [];
  if (fake === undefined || id === undefined) throw new Error('Expected a session, got none');
  const runs = fake.state.statuses.has(id);
  const atNs = process.hrtime.bigint();
  if (runs) fake.state.finish(id, 'Done.');
  else fake.state.begin(id, 'Go');
  return { atNs: String(atNs) };
}

/** A text part and its first words, as a real one announces them. */
function say(fake: FakeOpencode, text: string): FleetToken {
  const sessionID = promptedSession(fake);
  const messageID = fake.state.messages.get(sessionID)?.at(-1)?.info.id ?? newId('msg');
  const partID = newId('prt');
  const now = Date.now();
  const part = { id: partID, messageID, sessionID, type: 'text', text: '', time: { start: now } };
  fake.emit('message.part.updated', { sessionID, part, time: now });
  const atNs = process.hrtime.bigint();
  fake.emit('message.part.delta', { sessionID, messageID, partID, field: 'text', delta: text });
  return { atNs: String(atNs) };
}
