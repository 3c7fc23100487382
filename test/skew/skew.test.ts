/**
 * This build beside b98f13f, whose exchanges and files are in `recorded/` (see `record.ts`): people do not upgrade all their machines
 * at once.
 */
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';

import { describe, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { runCleanup } from '../../src/connected/cleanup/command.ts';
import { identifyProcess } from '../../src/connected/process-table.ts';
import { RelayLink } from '../../src/connected/relay/relay-link.ts';
import { readRunStates } from '../../src/connected/run-state.ts';
import { runStatus } from '../../src/connected/status/command.ts';
import { INSTANCE_PREFIX, LIST_PATH, STATES_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { DiscoverySource } from '../../src/discovery/source.ts';
import { instances } from '../../src/operations/listing/instances.ts';
import type { Runtime } from '../../src/operations/runtime.ts';
import { send } from '../../src/operations/send/send.ts';
import { CONFIG_PATH, load } from '../config/load-case.ts';
import { NO_PID, openRemains, type Remains } from '../connected/cleanup/remains.ts';
import { tailnetStage, type TailnetStage } from '../discovery/tailscale-stage.ts';
import { DIRECTORY, ID, openNodeStage, SELF } from '../node/stage.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { forward } from '../rig/http-listener.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry } from '../rig/registry.ts';
import { testCall, testFleet, testRegistrySource, testRuntime } from '../rig/runtime.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

type Role = 'drive' | 'read' | 'none';
interface Exchange {
  readonly request: { readonly as: Role; readonly method: string; readonly path: string };
  readonly response: Answer;
}
interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}
interface Request {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}
type Files = Readonly<Record<string, { readonly mode: string; readonly text: string }>>;

async function recorded<T>(name: string): Promise<T> {
  return JSON.parse(await readFile(join(import.meta.dirname, 'recorded', `${name}.json`), 'utf8')) as T;
}

const never = new AbortController().signal;

function runtimeOf(source: DiscoverySource, folder?: string): Runtime {
  const fleet = testFleet(source);
  onTestFinished(() => fleet.close());
  fleet.start();
  return testRuntime(fleet, folder);
}

interface OlderService extends AsyncDisposable {
  readonly stage: TailnetStage;
  readonly opencode: FakeOpencode;
  readonly runtime: Runtime;
  /** Held requests for the list. */
  readonly held: Set<ServerResponse>;
  /** Removes the instance from the list, for held and later requests. */
  end(): void;
}

/** This build's client with the older node service: recorded answers, and requests forwarded to an opencode. */
async function atOlderService(role: Role, isGone = false): Promise<OlderService> {
  const exchanges = await recorded<Exchange[]>('node-service');
  const opencode = await startFakeOpencode({ directory: DIRECTORY, reply: (text) => `re: ${text}` });
  opencode.addSession({ title: 'A session' });
  const held = new Set<ServerResponse>();
  let ended: Answer | undefined;
  const find = (path: string, status: number): Answer => {
    const found = exchanges.findLast(({ request, response }) => request.path === path && response.status === status);
    if (found === undefined) throw new Error(`Expected a recorded ${status} of ${path}`);
    return found.response;
  };
  /** The requests that it forwards for the role `read`. */
  const kindOf = (method: string, path: string): string =>
    `${method} ${path.split('?', 1)[0]?.replaceAll(/(ses|msg)_\w+/g, '$1')}`;
  const readable = new Set(
    exchanges
      .filter(({ request, response }) => request.as === 'read' && response.status === 200)
      .map(({ request }) => kindOf(request.method, request.path)),
  );
  const below = `${INSTANCE_PREFIX}id-web`;
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const { method = '', url = '', headers } = request;
    if (url === LIST_PATH) {
      const known = headers['if-none-match'] !== undefined;
      if (ended !== undefined) give(response, ended);
      else if (known && headers.prefer !== undefined) held.add(response);
      else if (role === 'none') give(response, find(LIST_PATH, 403));
      else give(response, find(LIST_PATH, known ? 304 : 200));
    } else if (url === STATES_PATH)
      // Its answer to any unknown path.
      give(response, role === 'none' ? find(LIST_PATH, 403) : find('/opencode-mcp/v2/instances', 404));
    else if (isGone) give(response, find(`${below}/path`, 404));
    else if (role === 'read' && !readable.has(kindOf(method, url))) give(response, find(`${below}/agent`, 403));
    else forward(request, response, opencode.url + url.slice(below.length));
  };
  const stage = await tailnetStage({ peers: [{ HostName: 'box' }], servers: { '100.64.0.2:4095': serve } });
  return {
    stage,
    opencode,
    held,
    end() {
      const list = find(LIST_PATH, 200);
      const instances: unknown[] = [];
      ended = {
        ...list,
        headers: { ...list.headers, etag: '"ended"' },
        body: JSON.stringify({ ...(JSON.parse(list.body) as object), instances }),
      };
      for (const response of held) give(response, ended);
    },
    runtime: runtimeOf(stage.source),
    async [Symbol.asyncDispose]() {
      await stage[Symbol.asyncDispose]();
      await opencode.close();
    },
  };
}

function give(response: ServerResponse, { status, headers, body }: Answer): void {
  response.writeHead(status, headers).end(body);
}

describe('the client at an older node service', () => {
  test("lists the service's instances, drives them, and gets changes from a held request for the list", async () => {
    await using older = await atOlderService('drive');
    const { runtime, held } = older;
    expect((await instances(runtime, { offset: 0 }, testCall())).data.instances).toMatchObject([
      { name: 'web', state: 'idle', directory: DIRECTORY },
    ]);
    expect((await send(runtime, { instance: 'web', message: 'hello' }, testCall())).data).toMatchObject({
      outcome: 'completed',
      text: 're: hello',
    });
    await until('the list to be held', () => held.size > 0);
    older.end();
    await until('the end of the instance', async () => {
      const { instances: rows } = (await instances(runtime, { offset: 0 }, testCall())).data;
      return rows.length === 0;
    });
  });

  test("reports, in the service's words, why a caller that may only read cannot send", async () => {
    await using older = await atOlderService('read');
    const { runtime } = older;
    const { data } = await instances(runtime, { offset: 0 }, testCall());
    expect(data.instances).toMatchObject([{ name: 'web', state: 'idle', session: { title: 'A session' } }]);
    await expect(send(runtime, { instance: 'web', message: 'hello' }, testCall())).rejects.toThrow(
      /not passed on to the instance, HTTP 403; the proxy answered "Your role here is 'read'/,
    );
    expect(older.opencode.state.prompts).toHaveLength(0);
  });

  test('reports why the service does not admit it, and that an instance is gone', async () => {
    await using stranger = await atOlderService('none');
    const { text } = await instances(stranger.runtime, { offset: 0 }, testCall());
    expect(text).toMatch(/eve@example\.com.*not admitted here.*OPENCODE_TAILNET_USERS=eve@example\.com/);
    await using gone = await atOlderService('drive', true);
    const { data } = await instances(gone.runtime, { offset: 0 }, testCall());
    expect(data.instances).toMatchObject([
      { name: 'web', state: 'offline', reason: expect.stringContaining('no such instance here now') as string },
    ]);
  });
});

describe('the node service and an older client', () => {
  test('each request of the client is answered, and reaches the instance unchanged', async () => {
    await using stage = await openNodeStage();
    const ours = (text: string): string =>
      text
        .replace('id-web', ID)
        .replace(encodeURIComponent('/home/ada/project'), encodeURIComponent(DIRECTORY))
        .replace('100.64.0.2:4095', `${SELF}:${stage.port}`);
    for (const { method, path, headers, body } of await recorded<Request[]>('client')) {
      const url = ours(path);
      const count = stage.seen.length;
      const answer = await stage.call(url, {
        method,
        headers: { ...headers, host: ours(headers['host'] ?? '') },
        ...(body !== undefined && { body }),
      });
      expect([url, answer.status]).toEqual([url, 200]);
      const passed = stage.seen.slice(count);
      if (passed.length > 0)
        expect(passed).toMatchObject([{ method, url: url.replace(stage.path(), ''), body: body ?? '' }]);
    }
  });

  test("the service's list has all fields of an older service's, and is held for a conditional request", async () => {
    await using stage = await openNodeStage();
    const [first] = await recorded<Exchange[]>('node-service');
    const answer = await stage.call(LIST_PATH);
    expect(shapeOf(JSON.parse(answer.text))).toMatchObject(shapeOf(JSON.parse(first?.response.body ?? '')) as object);
    expect(JSON.parse(answer.text)).toMatchObject({ protocol: 1 });
    for (const [name, value] of Object.entries(first?.response.headers ?? {}))
      if (name !== 'connection' && name !== 'etag') expect(answer.headers[name]).toBe(value);
    const held = (await recorded<Request[]>('client')).find(({ headers }) => headers['prefer'] !== undefined);
    const headers = { prefer: held?.headers['prefer'], 'if-none-match': answer.headers.etag };
    const waiting = stage.call(LIST_PATH, { headers });
    await until('it to be held', () => stage.service.waiting === 1);
    await stage.registry.remove('one', ID);
    expect(JSON.parse((await waiting).text)).toMatchObject({ instances: [] });
  });
});

test('an OpenCode 2 is invisible to an older client', async () => {
  await using temp = tempDir('skew-services');
  await mkdir(temp.path, { recursive: true });
  await using service = await startFakeOpencode2();
  await service.register(temp.path);
  await using stage = await openNodeStage({ opencodeStateDir: temp.path });
  const listing = await until('the service to be listed', async () => {
    const found = await stage.list();
    return found.services.length > 0 && found;
  });
  // It reads only these keys, and treats each entry as an OpenCode 1.
  const { protocol, instances: seen } = listing;
  expect([protocol, seen.map(({ id }) => id)]).toEqual([1, [ID]]);
});

/** Replaces each value by its type. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shapeOf);
  if (typeof value !== 'object' || value === null) return typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shapeOf(inner)]));
}

/** Files of the older wrapper, with replacements. */
async function place(folder: string, files: Files, swap: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, { mode, text }] of Object.entries(files)) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const ours = Object.entries(swap).reduce((all, [found, word]) => all.replaceAll(found, word), text);
    await writeFile(path, ours, { mode: Number.parseInt(mode, 8) });
  }
}

interface OlderWrapper {
  readonly remains: Remains;
  readonly id: string;
  readonly stateKeys: readonly string[];
}

/** The files of an older wrapper whose processes are dead, or all `pid`. */
async function olderWrapper(pid?: number): Promise<OlderWrapper> {
  const { here, state } = await recorded<Readonly<Record<'here' | 'state', Files>>>('files');
  const remains = await openRemains();
  onTestFinished(() => remains[Symbol.asyncDispose]());
  const [id = ''] = /^\S+/.exec(here['.web.claim']?.text ?? '') ?? [];
  const said = JSON.parse(state[`${id}.json`]?.text ?? '{}') as Record<string, unknown>;
  const [, claimPid = '', claimStarted = ''] = here['.web.claim']?.text.split(' ') ?? [];
  const started = pid === undefined ? '1' : ((await identifyProcess(pid))?.started ?? '');
  const number = String(pid ?? NO_PID);
  const swap = {
    [`${claimPid} ${claimStarted} laptop`]: `${number} ${started} ${hostname()}`,
    [`"pid":${String(said['pid'])},"started":"${String(said['started'])}"`]: `"pid":${number},"started":"${started}"`,
    [`"opencodePid":${String(said['opencodePid'])},"opencodeStarted":"${String(said['opencodeStarted'])}"`]: `"opencodePid":${number},"opencodeStarted":"${started}"`,
    [`,"sshPid":${String(said['sshPid'])}`]: '',
    '"hostname":"laptop"': `"hostname":"${hostname()}"`,
    [String(said['port'])]: String(await freePort()),
    '/home/ada/registry': remains.registry,
  };
  await place(remains.registry, here, swap);
  await place(join(remains.stateDir, 'connected'), state, swap);
  return { remains, id, stateKeys: Object.keys(said).filter((key) => key !== 'sshPid') };
}

async function run(command: typeof runCleanup, { remains }: OlderWrapper): Promise<string> {
  let text = '';
  await command({ settings: remains.places(), dryRun: false, out: (more) => (text += more), signal: never });
  return text;
}

describe('files of an older wrapper', () => {
  test('are read by the registry source, with the password', async () => {
    const { remains, id } = await olderWrapper();
    const source = testRegistrySource(remains.registry, hostname());
    onTestFinished(() => source.close?.());
    const { candidates, notes } = await source.scan(never);
    expect(notes).toEqual([]);
    expect(candidates).toMatchObject([
      { claims: { id, name: 'web', directory: '/home/ada/project' }, credential: { password: { kind: 'file' } } },
    ]);
  });

  test('are shown by status and kept by cleanup while the wrapper runs', async () => {
    const standIn = await openRemains();
    onTestFinished(() => standIn[Symbol.asyncDispose]());
    const { pid } = await standIn.process();
    const wrapper = await olderWrapper(pid);
    const [state] = await readRunStates(wrapper.remains.stateDir);
    expect(state?.isRunning).toBe(true);
    expect(Object.keys(state?.state ?? {}).toSorted()).toEqual([...wrapper.stateKeys].toSorted());
    expect(await run(runStatusText, wrapper)).toMatch(/web: pid \d+, port \d+.*relay: connected as web/s);
    const before = await wrapper.remains.files();
    expect(await run(runCleanup, wrapper)).toContain('Nothing is provably dead');
    expect(await wrapper.remains.files()).toEqual(before);
  });

  test('are removed by cleanup when the wrapper is dead', async () => {
    const wrapper = await olderWrapper();
    expect(await run(runCleanup, wrapper)).toMatch(/Removed registration .*web\.json/);
    expect(await wrapper.remains.files()).toEqual([]);
    expect(await readdir(join(wrapper.remains.stateDir, 'connected'))).toEqual([]);
  });

  const runStatusText: typeof runCleanup = (options) => runStatus({ ...options, json: false });
});

test('a registration, its claim and its password have a format that older readers can read', async () => {
  const { here } = await recorded<Readonly<Record<'here', Files>>>('files');
  await using temp = tempDir('skew');
  const link = new RelayLink({
    sshCommand: undefined,
    registryDir: { path: join(temp.path, 'registry'), explicit: true },
    localPort: 4096,
    id: 'id-one',
    name: 'web',
    password: 'made up',
    describe: (port) => ({
      protocol: 1,
      hostname: 'laptop',
      port,
      localPort: 4096,
      cwd: '/home/ada/project',
      connectedAt: '2026-01-01T00:00:00Z',
    }),
    clock: systemClock,
    logger: silentLogger,
  });
  onTestFinished(() => link.close());
  expect(await link.connectFirst(never)).toMatchObject({ kind: 'connected', name: 'web' });
  for (const [name, { mode, text }] of Object.entries(here)) {
    const path = join(temp.path, 'registry', name.replace(/(?<=\.credentials\/).*/, 'id-one'));
    const written = await readFile(path, 'utf8');
    expect([name, ((await stat(path)).mode & 0o777).toString(8)]).toEqual([name, mode]);
    if (name.endsWith('.json')) expect(shapeOf(JSON.parse(written))).toMatchObject(shapeOf(JSON.parse(text)) as object);
    else if (name.endsWith('.claim')) expect(written.split(' ')).toHaveLength(text.split(' ').length);
    else expect(written).toBe(text);
  }
});

test('a request_id kept by an older server is not sent again', async () => {
  const { request, file, entry } = await recorded<{
    readonly request: { readonly instance: string; readonly request_id: string; readonly message: string };
    readonly file: string;
    readonly entry: { readonly sessionId: string; readonly messageId: string; readonly partId: string };
  }>('journal');
  await using temp = tempDir('skew');
  await using opencode = await startFakeOpencode({ reply: (text) => `re: ${text}` });
  opencode.addSession({ id: entry.sessionId });
  const body = { messageID: entry.messageId, parts: [{ id: entry.partId, type: 'text', text: request.message }] };
  const path = `/session/${entry.sessionId}/prompt_async`;
  await fetch(opencode.url + path, { method: 'POST', body: JSON.stringify(body) });
  const folder = join(temp.path, 'requests');
  await mkdir(folder, { mode: 0o700 });
  await writeFile(join(folder, file), JSON.stringify(entry), { mode: 0o600 });
  const registry = await openRegistry(join(temp.path, 'registry'));
  await registry.add({ name: request.instance, port: opencode.port, cwd: opencode.directory });
  const source = testRegistrySource(registry.path);
  // A turn that ended long ago has no events for a while.
  const runtime = { ...runtimeOf(source, folder), clock: leapingClock() };
  expect((await send(runtime, request, testCall())).data).toMatchObject({ outcome: 'completed', text: 're: hello' });
  expect(opencode.state.prompts).toHaveLength(1);
});

test('a config file with every key of an older build is read without a warning', async () => {
  const config = await recorded<Readonly<Record<string, unknown>>>('config');
  const { settings, warnings } = load({ config, files: { [join(dirname(CONFIG_PATH), 'password')]: 'made up\n' } });
  expect(warnings.filter((warning) => !warning.includes('holds a secret'))).toEqual([]);
  expect(settings).toMatchObject({ healthConcurrency: 8, sendTimeoutMs: 60_000, instances: [{ name: 'far' }] });
});
