import { once } from 'node:events';
import { type IncomingMessage, type OutgoingHttpHeaders, request as requestHttp, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { hostname } from 'node:os';
import type { Duplex } from 'node:stream';
import { text as readText } from 'node:stream/consumers';

import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { LogLevel } from '../../src/base/log.ts';
import type { AdmissionRules } from '../../src/node/access/admission.ts';
import { INSTANCE_PREFIX, LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import type { ListenerLimits } from '../../src/node/listener.ts';
import type { LoopbackPeerDeps } from '../../src/node/access/loopback-peer.ts';
import { OwnInstances, type OwnInstancesDeps } from '../../src/node/list/own-instances.ts';
import { OwnPorts } from '../../src/node/access/own-ports.ts';
import { NodeService } from '../../src/node/service.ts';
import { LiveWatcher } from '../../src/watch/live-watcher.ts';
import type { Approver } from '../../src/config/settings.ts';
import type { RecordEntry } from '../../src/operations/call-record.ts';
import type { StartedFleet } from '../../src/page/lazy-runtime.ts';
import { readSecret } from '../../src/credentials/secret.ts';
import { MemoryLocalApi, tailnetNode, whoisOf } from '../rig/memory-local-api.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { testRuntime } from '../rig/runtime.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

/** This machine's tailnet address, and those of its callers: loopback has many. */
export const SELF = '127.0.0.2';
export const OWN_LAPTOP = '127.0.0.3';
export const READER = '127.0.0.4';
export const STRANGER = '127.0.0.5';

export const CAPABILITY = 'opencode-mcp.dev/cap/opencode';
export const PASSWORD = 'pa55word-of-the-instance';
export const ID = 'inst_one-1';
export const DIRECTORY = '/home/ada/project';

/** A request as the instance got it. */
export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

export interface CallOptions {
  readonly from?: string;
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
}

export interface NodeStageOptions {
  readonly rules?: Partial<AdmissionRules>;
  readonly tun?: boolean;
  readonly clock?: Clock;
  readonly limits?: ListenerLimits;
  readonly maxConnections?: number;
  readonly maxRequestsPerCaller?: number;
  /** Where OpenCode 2 services write themselves down; default nowhere. */
  readonly opencodeStateDir?: string;
  /** The instance asks for no password, and none is registered. */
  readonly open?: boolean;
  readonly loopbackPeer?: Partial<LoopbackPeerDeps>;
  readonly ports?: OwnInstancesDeps['ports'];
  /** Follows what the instances do, which asks them; default not. */
  readonly watch?: boolean;
  /** See `Approvals`. */
  readonly approve?: Approver;
  /** What the own user sees on the page; default: it cannot be started. */
  readonly startAll?: () => Promise<StartedFleet>;
  /** What the instance does with a request that is not of its identity. */
  readonly handler?: (request: IncomingMessage, response: ServerResponse, body: string) => void;
  readonly onUpgrade?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

export interface LogLine {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** A node service in this process, a tailnet in memory, and one instance that remembers what it was asked. */
export interface NodeStage extends AsyncDisposable {
  readonly api: MemoryLocalApi;
  readonly service: NodeService;
  readonly watcher: LiveWatcher;
  readonly registry: Registry;
  readonly port: number;
  /** Where the instance listens. */
  readonly instancePort: number;
  /** Requests that reached the instance, without those of the probe. */
  readonly seen: readonly Seen[];
  readonly log: readonly LogLine[];
  /** The instance ends; the service may not know yet. */
  endInstance(): Promise<void>;
  /** Below the instance. */
  path(path?: string): string;
  call(path: string, options?: CallOptions): Promise<Answer>;
  /** As `call`, below the instance. */
  ask(path: string, options?: CallOptions): Promise<Answer>;
  list(options?: CallOptions): Promise<Listing>;
  /** A plain connection to the service. */
  connect(from?: string): Promise<Socket>;
  /** Sends bytes as they are and resolves with all that comes back until the service closes. */
  raw(bytes: string, from?: string): Promise<string>;
}

/** Where `list` gave the instance, ready for requests. */
export async function openNodeStage(options: NodeStageOptions = {}): Promise<NodeStage> {
  const { tun = true } = options;
  const temp = tempDir('opencode-mcp-node');
  const registry = await openRegistry(`${temp.path}/registry`);
  const seen: Seen[] = [];
  const instance = await listenHttp((request, response) => void serve(request, response, seen, options));
  if (options.onUpgrade) instance.server.on('upgrade', options.onUpgrade);
  await registry.add(
    { name: 'one', port: instance.port, cwd: DIRECTORY, id: ID },
    options.open === true ? {} : { password: PASSWORD },
  );
  const api = new MemoryLocalApi(tailnetNode({ id: 'self', addresses: [SELF] }), { tun });
  populate(api);
  const address = tun ? SELF : '127.0.0.1';
  const { service, watcher, instances, port, log } = await runService(registry.path, api, options);
  await until('the service to listen', () => service.addresses.includes(address));
  await until('the instance to be found', async () => (await instances.list()).length > 0);
  const call = (path: string, callOptions: CallOptions = {}): Promise<Answer> => send(address, port, path, callOptions);
  const path = (below = ''): string => INSTANCE_PREFIX + ID + below;
  const open = async (from = OWN_LAPTOP): Promise<Socket> => {
    const socket = connect({ host: address, port, localAddress: from });
    socket.on('error', () => {});
    await once(socket, 'connect');
    return socket;
  };

  return {
    api,
    service,
    watcher,
    registry,
    port,
    instancePort: instance.port,
    seen,
    log,
    endInstance: () => instance.close(),
    path,
    call,
    ask: (below, callOptions) => call(path(below), callOptions),
    async list(callOptions) {
      const { status, text } = await call(LIST_PATH, callOptions);
      if (status !== 200) throw new Error(`the list gave ${status}: ${text}`);
      const listing: Listing = JSON.parse(text);
      return listing;
    },
    connect: open,
    async raw(bytes, from) {
      const socket = await open(from);
      socket.write(bytes);
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      await within(once(socket, 'close'), 'the service to close the connection');
      return Buffer.concat(chunks).toString('latin1');
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([watcher.close(), service.close()]);
      await instance.close();
      await temp.close();
    },
  };
}

export interface RunningService {
  readonly service: NodeService;
  readonly watcher: LiveWatcher;
  readonly instances: OwnInstances;
  readonly port: number;
  readonly log: readonly LogLine[];
  /** What was recorded of the page's actions. */
  readonly records: readonly RecordEntry[];
}

/** A node service in this process, started, on a port of its own. */
export async function runService(
  registryPath: string,
  api: MemoryLocalApi,
  options: Omit<NodeStageOptions, 'handler' | 'onUpgrade'> = {},
): Promise<RunningService> {
  const port = await freePort();
  const log: LogLine[] = [];
  const records: RecordEntry[] = [];
  const logger = {
    log: (level: LogLevel, message: string, fields: Readonly<Record<string, unknown>> = {}) =>
      void log.push({ level, message, fields }),
  };
  const uid = process.getuid?.() ?? 0;
  const {
    rules,
    clock = systemClock,
    ports = new OwnPorts(uid),
    loopbackPeer,
    limits,
    maxConnections,
    maxRequestsPerCaller,
    opencodeStateDir = `${registryPath}/no-services`,
    watch = false,
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
      own: testRuntime(instances.fleet, `${registryPath}/requests`, options.approve),
      startAll: options.startAll ?? (() => Promise.reject(new Error('no other machines here'))),
      readOnly: false,
      record: (entry) => void records.push(entry),
    },
    port,
    host: 'the-host',
    rules: { users: [], tags: [], ...rules },
    clock,
    logger,
    loopbackPeer: {
      tailscaledUid: () => Promise.resolve(undefined),
      readSockets: () => Promise.resolve([]),
      holders: () => Promise.resolve([]),
      ...loopbackPeer,
    },
    ...(limits && { limits }),
    ...(maxConnections !== undefined && { maxConnections }),
    ...(maxRequestsPerCaller !== undefined && { maxRequestsPerCaller }),
  });
  service.start();
  if (watch) watcher.start();
  return { service, watcher, instances, port, log, records };
}

/** Joins the own user's laptop, one with a grant to read, and one without any right. */
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
  const expected = `Basic ${Buffer.from(`opencode:${PASSWORD}`).toString('base64')}`;
  const json = (value: unknown): void =>
    void response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
  if (!open && headers.authorization !== expected) {
    response.writeHead(401, { 'www-authenticate': 'Basic' }).end();
  } else if (url === '/global/health') json({ healthy: true, version: '1.18.33' });
  else if (url === '/path') json({ directory: DIRECTORY, worktree: DIRECTORY });
  else if (
    url === '/session/status' ||
    url === '/experimental/session?limit=50' ||
    url === '/permission' ||
    url === '/question' ||
    url.endsWith('&roots=true&limit=10')
  )
    json([]);
  else {
    const body = await readText(request).catch(() => '');
    seen.push({ method, url, headers, body });
    if (handler) handler(request, response, body);
    else json({ answered: url });
  }
}

function send(host: string, port: number, path: string, options: CallOptions): Promise<Answer> {
  const { from = OWN_LAPTOP, method = 'GET', headers = {}, body } = options;
  const answered = new Promise<Answer>((resolve, reject) => {
    // Node's client frames no body of a DELETE by itself.
    const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
    const request = requestHttp({
      host,
      port,
      path,
      method,
      headers: { ...length, ...headers },
      localAddress: from,
      agent: false,
    });
    request.once('error', reject);
    request.once('response', (response) => {
      readText(response).then(
        (text) => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
        reject,
      );
    });
    request.end(body);
  });
  return within(answered, `${method} ${path}`);
}
