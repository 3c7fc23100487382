import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { hostname } from 'node:os';
import type { Duplex } from 'node:stream';
import { text as readText } from 'node:stream/consumers';

import { systemClock } from '../../src/base/clock.ts';
import type { LogLevel } from '../../src/base/log.ts';
import { INSTANCE_PREFIX, LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import type { LoopbackPeerDeps } from '../../src/node/access/loopback-peer.ts';
import { OwnInstances, type OwnInstancesDeps } from '../../src/node/list/own-instances.ts';
import { OwnPorts } from '../../src/node/access/own-ports.ts';
import { NodeService, type NodeServiceDeps } from '../../src/node/service.ts';
import { MIN_READ_INTERVAL_MS } from '../../src/node/tailnet-view.ts';
import type { TailnetStatus } from '../../src/tailscale/types.ts';
import { type CallOptions, sendRequest } from './send-request.ts';
import { LiveWatcher } from '../../src/watch/live-watcher.ts';
import type { Approver } from '../../src/config/settings.ts';
import type { RecordEntry } from '../../src/operations/call-record.ts';
import type { StartedFleet } from '../../src/page/lazy-runtime.ts';
import { basicAuthorization } from '../../src/http/exchange.ts';
import { readSecret } from '../../src/credentials/secret.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { MemoryLocalApi, tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry } from '../rig/registry.ts';
import { testRuntime } from '../rig/runtime.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

/** Loopback addresses that act as the tailnet addresses of this machine and its callers. */
export const SELF = '127.0.0.2';
export const OWN_LAPTOP = '127.0.0.3';
export const READER = '127.0.0.4';
export const STRANGER = '127.0.0.5';

export const CAPABILITY = 'opencode-mcp.dev/cap/opencode';
export const PASSWORD = 'pa55word-of-the-instance';
export const ID = 'inst_one-1';
export const DIRECTORY = '/home/ada/project';

/** A request as the instance received it. */
export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

type PassedToService = Pick<NodeServiceDeps, 'clock' | 'limits' | 'maxConnections' | 'maxRequestsPerCaller'>;

export interface ServiceOptions extends Partial<PassedToService> {
  /** The folder of the service files of OpenCode 2; default: a folder that does not exist. */
  readonly opencodeStateDir?: string;
  readonly loopbackPeer?: Partial<LoopbackPeerDeps>;
  readonly ports?: OwnInstancesDeps['ports'];
  /** Runs the watcher, which sends requests to the instances. */
  readonly watch?: boolean;
  /** See `Approvals`. */
  readonly approve?: Approver;
  /** Starts the fleet that the node's user sees on the page; default: rejects. */
  readonly startAll?: () => Promise<StartedFleet>;
}

export interface NodeStageOptions extends ServiceOptions {
  readonly tun?: boolean;
  /** The instance needs no password and is registered without one. */
  readonly open?: boolean;
  /** Answers the instance's requests other than those of the probe. */
  readonly handler?: (request: IncomingMessage, response: ServerResponse, body: string) => void;
  readonly onUpgrade?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

interface LogLine {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Returns the text of a request with these header lines. */
export function requestText(path: string, headers: readonly string[] = [], method = 'GET'): string {
  return [`${method} ${path} HTTP/1.1`, `Host: ${SELF}`, ...headers, '', ''].join('\r\n');
}

/** Header lines of a WebSocket handshake. */
export const UPGRADE = ['Connection: Upgrade', 'Upgrade: websocket'];

/** Accepts an upgrade as an instance's terminal does. */
export function acceptTerminal(onClose: () => void = () => {}): NonNullable<NodeStageOptions['onUpgrade']> {
  return (_, socket) => {
    socket.on('error', () => {}).once('close', onClose);
    socket.once('end', () => socket.end()).resume();
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
  };
}

/** Treats every port as held by this user. */
export const trustingPorts: OwnInstancesDeps['ports'] = { ours: (claims) => Promise.resolve(claims) };

export type NodeStage = Awaited<ReturnType<typeof openNodeStage>>;

/**
 * A node service in this process, a tailnet in memory, and one instance that records its requests. Resolves once the instance is
 * listed and requests are served.
 */
export async function openNodeStage(options: NodeStageOptions = {}) {
  const { tun = true, open = false } = options;
  const temp = tempDir('opencode-mcp-node');
  const registry = await openRegistry(`${temp.path}/registry`);
  /** Requests that reached the instance, except those of the probe. */
  const seen: Seen[] = [];
  const instance = await listenHttp((request, response) => void serve(request, response, seen, options));
  if (options.onUpgrade) instance.server.on('upgrade', options.onUpgrade);
  const password = open ? {} : { password: PASSWORD };
  await registry.add({ name: 'one', port: instance.port, cwd: DIRECTORY, id: ID }, password);
  const api = new MemoryLocalApi(tailnetNode({ id: 'self', addresses: [SELF] }), { tun });
  populate(api);
  const host = tun ? SELF : '127.0.0.1';
  const running = await runService(registry.path, api, options);
  const { service, watcher, instances, port } = running;
  await until('the service to listen', () => service.addresses.includes(host));
  await until('the instance to be found', async () => (await instances.list()).length > 0);

  /** Returns the service's path for a path of the instance. */
  const path = (instancePath = ''): string => INSTANCE_PREFIX + ID + instancePath;
  const call = (target: string, callOptions: CallOptions = {}) =>
    sendRequest({ host, port, path: target }, { from: OWN_LAPTOP, ...callOptions });
  const list = async (callOptions?: CallOptions): Promise<Listing> => {
    const { status, text } = await call(LIST_PATH, callOptions);
    if (status !== 200) throw new Error(`the list gave ${status}: ${text}`);
    return JSON.parse(text);
  };
  /** Connects and sends `request` unchanged. */
  const connectAndSend = async (request = '', from = OWN_LAPTOP) => {
    const socket = connect({ host, port, localAddress: from });
    let received = '';
    socket.on('error', () => {});
    socket.setEncoding('latin1').on('data', (text: string) => (received += text));
    await once(socket, 'connect');
    socket.write(request);
    const receives = (part: string): Promise<unknown> =>
      until(`the service to send ${part}`, () => received.includes(part));
    return { socket, received: () => received, receives };
  };
  /** Sends `request` unchanged and resolves with all that the service sends until it closes the connection. */
  const raw = async (request: string, from?: string): Promise<string> => {
    const { socket, received } = await connectAndSend(request, from);
    if (!socket.closed) await within(once(socket, 'close'), 'the service to close the connection');
    return received();
  };
  /** Sends a request for the list or the states that waits for a change. Resolves once it is held. */
  const hold = async (target: string, { from = OWN_LAPTOP, tag = '', seconds = '20' } = {}) => {
    const before = service.waiting;
    const known = tag === '' ? (await call(target, { from })).headers.etag : tag;
    const answer = call(target, { from, headers: { 'if-none-match': known, prefer: `wait=${seconds}` } });
    // A test that awaits `answer` sees the error.
    answer.catch(() => {});
    await until('the request to be held', () => service.waiting > before);
    return { answer };
  };
  return {
    ...running,
    api,
    registry,
    instance,
    seen,
    path,
    call,
    /** Sends a request to the instance. */
    ask: (instancePath: string, callOptions?: CallOptions) => call(path(instancePath), callOptions),
    list,
    open: connectAndSend,
    raw,
    hold,
    async [Symbol.asyncDispose]() {
      await Promise.all([watcher.close(), service.close()]);
      await instance.close();
      await temp.close();
    },
  };
}

export type ClockedStage = Awaited<ReturnType<typeof openClockedStage>>;

/** A stage whose clock only a test advances. */
export async function openClockedStage(options: Omit<NodeStageOptions, 'clock'> = {}) {
  const clock = new ManualClock();
  const stage = await openNodeStage({ ...options, clock });
  /** Changes the tailnet, and lets the service read the change. */
  const change = async (fields: Partial<TailnetStatus>): Promise<void> => {
    stage.api.set(fields);
    await clock.advance(MIN_READ_INTERVAL_MS);
  };
  return { ...stage, clock, change };
}

export type RunningService = Awaited<ReturnType<typeof runService>>;

/** Starts a node service in this process, on a free port. */
export async function runService(registryPath: string, api: MemoryLocalApi, options: ServiceOptions = {}) {
  const port = await freePort();
  const log: LogLine[] = [];
  /** The recorded actions of the page. */
  const records: RecordEntry[] = [];
  const logger = {
    log: (level: LogLevel, message: string, fields: LogLine['fields'] = {}) =>
      void log.push({ level, message, fields }),
  };
  const uid = process.getuid?.() ?? 0;
  const {
    ports = new OwnPorts(uid),
    loopbackPeer,
    opencodeStateDir = `${registryPath}/no-services`,
    watch = false,
    approve,
    startAll = () => Promise.reject(new Error('no other machines here')),
    ...serviceDeps
  } = options;
  const instances = new OwnInstances({
    settings: {
      registryDir: { path: registryPath, explicit: true },
      stateDir: registryPath,
      opencodeStateDir,
      discoveryIntervalMs: 1000,
      healthCheckTimeoutMs: 20_000,
      healthConcurrency: 4,
    },
    uid,
    hostname: hostname(),
    ports,
    clock: systemClock,
    logger,
    resolveCredential: async ({ credential }, signal) => {
      const password =
        credential && (await readSecret(credential.password, { commands: { run: () => Promise.reject() } }, signal));
      return password === undefined ? undefined : { username: 'opencode', password };
    },
  });
  const watcher = new LiveWatcher({ own: instances, clock: systemClock, logger });
  const service = new NodeService({
    api,
    instances,
    watcher,
    page: {
      own: testRuntime(instances.fleet, `${registryPath}/requests`, approve),
      startAll,
      readOnly: false,
      record: (entry) => void records.push(entry),
    },
    port,
    host: 'the-host',
    rules: { users: [], tags: [] },
    clock: systemClock,
    logger,
    loopbackPeer: {
      tailscaledUid: () => Promise.resolve(undefined),
      readSockets: () => Promise.resolve([]),
      holders: () => Promise.resolve([]),
      ...loopbackPeer,
    },
    ...serviceDeps,
  });
  service.start();
  if (watch) watcher.start();
  return { service, watcher, instances, port, log, records };
}

/** Adds the node user's laptop, a machine with a grant to read, and one without any right. */
export function populate(api: MemoryLocalApi): void {
  api.join(tailnetNode({ id: 'laptop', addresses: [OWN_LAPTOP] }));
  const reader = tailnetNode({ id: 'reader', addresses: [READER], userId: 'user-bob' });
  api.join(reader, whoisOf(reader, 'bob@example.com', { [CAPABILITY]: [{ role: 'read' }] }));
  const stranger = tailnetNode({ id: 'stranger', addresses: [STRANGER], userId: 'user-eve' });
  api.join(stranger, whoisOf(stranger, 'eve@example.com'));
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  seen: Seen[],
  { handler, open = false }: NodeStageOptions,
): Promise<void> {
  const { url = '', method = '', headers } = request;
  const expected = basicAuthorization({ username: 'opencode', password: PASSWORD });
  const json = (value: unknown): void =>
    void response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
  if (!open && headers.authorization !== expected) response.writeHead(401, { 'www-authenticate': 'Basic' }).end();
  else if (url in PROBE_ANSWERS) json(PROBE_ANSWERS[url]);
  else if (url.endsWith('&roots=true&limit=10')) json([]);
  else {
    const body = await readText(request).catch(() => '');
    seen.push({ method, url, headers, body });
    if (handler) handler(request, response, body);
    else json({ answered: url });
  }
}

/** Answers to the requests that the probe and the watcher send. */
const PROBE_ANSWERS: Readonly<Record<string, unknown>> = {
  '/global/health': { healthy: true, version: '1.18.33' },
  '/path': { directory: DIRECTORY, worktree: DIRECTORY },
  '/session/status': [],
  '/experimental/session?limit=50': [],
  '/permission': [],
  '/question': [],
};
