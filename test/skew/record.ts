/**
 * Writes `recorded/*.json`, the exchanges and files of an older build, which `skew.test.ts` checks newer builds against.
 * Run once for a build: `node --import tsx test/skew/record.ts <its checkout, with dist/>`. Names, paths and secrets are invented.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { request as requestHttp, type IncomingMessage } from 'node:http';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import { text as readText } from 'node:stream/consumers';

import { INSTANCE_PREFIX, LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { connectedEnvironment, filesIn } from '../rig/programs/connected-child.ts';
import { ADA, EVE, json, startFakeLocalApi, write } from '../rig/fake/fake-local-api.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { startMcpChild } from '../rig/programs/mcp-child.ts';
import { openSandbox } from '../rig/opencode/opencode-sandbox.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry } from '../rig/registry.ts';
import { startSshd } from '../rig/network/sshd.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';

const SELF = '127.0.0.2';
const DIRECTORY = '/home/ada/project';
const PASSWORD = 'made up';
const MODEL_HEADERS = ['host', 'connection', 'accept', 'accept-encoding', 'if-none-match', 'prefer', 'content-type'];
const ANSWER_HEADERS = [
  'content-type',
  'etag',
  'cache-control',
  'preference-applied',
  'proxy-status',
  'x-content-type-options',
  'connection',
];
/** Every key that the older build knows; it must start with this. */
const CONFIG = {
  registryDir: '/home/ada/registry',
  discoveryIntervalMs: 15_000,
  healthCheckTimeoutMs: 4000,
  healthConcurrency: 8,
  sendTimeoutMs: 60_000,
  transport: 'all',
  toolsets: ['all'],
  readOnly: false,
  approve: 'ask',
  logLevel: 'info',
  username: 'opencode',
  relaySshCommand: 'ssh ada@relay.example',
  relayRegistryDir: '/srv/registry',
  opencodeBin: 'opencode',
  tailscaleSocket: '/run/tailscale/tailscaled.sock',
  nodePort: 4095,
  tailnetPorts: [4096],
  tailnetTags: ['tag:ci'],
  tailnetUsers: 'eve@example.com',
  mdnsInterfaces: 'none',
  password: { file: 'password' },
  credentials: [{ name: 'web', source: 'static', password: { command: ['pass', 'web'] } }],
  instances: [
    { name: 'far', url: 'http://127.0.0.1:4097', headers: { 'x-key': 'value' }, username: 'ada', password: 'made up' },
  ],
  approvals: [{ instance: 'web', permission: 'bash', pattern: 'git *', approve: 'ask' }],
};
const checkout = process.argv[2];
if (checkout === undefined) throw new Error('Expected the checkout of an older build as the only argument');
const program = (name: string): string => join(checkout, 'dist', `${name}.js`);

/** Replaces names and paths of this machine. */
async function save(name: string, value: unknown, scrub: readonly (readonly [string, string])[] = []): Promise<void> {
  let text = JSON.stringify(value, null, 2);
  for (const [found, word] of [...scrub, [hostname(), 'laptop'] as const]) text = text.replaceAll(found, word);
  await writeFile(join(import.meta.dirname, 'recorded', `${name}.json`), `${text}\n`);
}

function pick(headers: IncomingMessage['headers'], names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.flatMap((name) => (headers[name] === undefined ? [] : [[name, headers[name]]])));
}

async function recordNodeService(): Promise<void> {
  await using temp = tempDir('skew-record');
  const opencode = await startFakeOpencode({ password: PASSWORD, directory: DIRECTORY, reply: () => 'done' });
  const session = opencode.addSession({ title: 'A session' });
  const registry = await openRegistry(join(temp.path, 'registry'));
  await registry.add({ name: 'web', port: opencode.port, cwd: DIRECTORY, id: 'id-web' }, { password: PASSWORD });
  let role: 'drive' | 'read' | 'none' = 'drive';
  await using api = await startFakeLocalApi({
    status: { Self: { ID: 'nBOX', HostName: 'box', DNSName: 'box.tailnet.test.', UserID: ADA, TailscaleIPs: [SELF] } },
    peers: [{ ID: 'nLAPTOP', TailscaleIPs: ['127.0.0.1'] }],
  });
  api.answers.set('whois', (_, response) => {
    const [user, login] = role === 'drive' ? [ADA, 'ada@example.com'] : [EVE, 'eve@example.com'];
    const grants = role === 'read' ? { 'opencode-mcp.dev/cap/opencode': [{ role }] } : {};
    const node = { StableID: 'nLAPTOP', Name: 'laptop.tailnet.test.', User: user };
    json(response, write({ Node: node, UserProfile: { ID: user, LoginName: login }, CapMap: grants }));
  });
  const port = await freePort();
  const node = spawn(process.execPath, [program('opencode-mcp'), 'node', '--registry-dir', registry.path], {
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: temp.path,
      TMPDIR: temp.tmp,
      TAILSCALE_SOCKET: api.socketPath,
      OPENCODE_NODE_PORT: String(port),
    },
    stdio: 'ignore',
  });
  const exchanges: unknown[] = [];
  async function ask(
    path: string,
    { method = 'GET', headers = {}, body, as = role }: Partial<Asked> = {},
  ): Promise<Answered> {
    role = as;
    const asked = { ...headers, ...(body !== undefined && { 'content-type': 'application/json' }) };
    const request = requestHttp({ host: SELF, port, path, method, headers: asked, agent: false });
    request.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    // The headers are enough: the stream has no end.
    const isStream = path.endsWith('/event');
    const answer = {
      status: response.statusCode ?? 0,
      headers: response.headers,
      body: isStream ? '' : await readText(response),
    };
    if (isStream) response.destroy();
    const { status, headers: got } = answer;
    exchanges.push({
      request: { as, method, path, headers: asked, ...(body !== undefined && { body }) },
      response: { status, headers: pick(got, ANSWER_HEADERS), body: answer.body },
    });
    return answer;
  }
  try {
    await until('the list', async () => (await ask(LIST_PATH).catch(() => undefined))?.body.includes('id-web'));
    exchanges.length = 0;
    const first = await ask(LIST_PATH);
    const known = { 'if-none-match': String(first.headers.etag) };
    await ask(LIST_PATH, { headers: known });
    await ask(LIST_PATH, { headers: { ...known, prefer: 'wait=1' } });
    const below = `${INSTANCE_PREFIX}id-web`;
    await ask(`${below}/path`);
    await ask(`${below}/session/ses_none`);
    await ask(`${below}/session/${session.id}/prompt_async`, {
      method: 'POST',
      body: { parts: [{ type: 'text', text: 'hello' }] },
    });
    const own = `/session/${session.id}`;
    const routes = ['/global/health', '/path', '/event', '/session', '/session/status', '/permission', '/question'];
    for (const path of [...routes, own, `${own}/message`, '/experimental/session', '/agent'])
      await ask(below + path, { as: 'read' });
    await ask(`${below}${own}/prompt_async`, { method: 'POST', body: {}, as: 'read' });
    await ask(LIST_PATH, { as: 'none' });
    await ask(`${INSTANCE_PREFIX}id-gone/path`, { as: 'drive' });
    await ask(LIST_PATH.replace('v1', 'v2'));
    await opencode.close();
    await ask(`${below}/path`);
    await save('node-service', exchanges, [
      [String(opencode.port), '4096'],
      [String(port), '4095'],
      [SELF, '100.64.0.2'],
    ]);
  } finally {
    node.kill();
    await once(node, 'exit');
  }
}

interface Asked {
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  readonly as: 'drive' | 'read' | 'none';
}

interface Answered {
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** The older MCP server with a forwarding node service; records its request journal. */
async function recordClient(): Promise<void> {
  await using opencode = await startFakeOpencode({ directory: DIRECTORY, reply: () => 'done' });
  opencode.addSession({ title: 'A session' });
  const requests = new Map<string, unknown>();
  await using service = await listenHttp((request, response) => {
    void (async () => {
      const { method = '', url = '', headers } = request;
      const body = await readText(request);
      const path = url.replace(INSTANCE_PREFIX + 'id-web', '');
      const kind = `${method} ${path.replaceAll(/(ses|msg|per|que)_\w+/g, '$1')} ${Object.keys(headers).toSorted().join()}`;
      const kept = { method, path: url, headers: pick(headers, MODEL_HEADERS), ...(body !== '' && { body }) };
      if (!requests.has(kind)) requests.set(kind, kept);
      if (url === LIST_PATH) {
        const held = headers.prefer !== undefined;
        const list = { protocol: 1, node: { id: 'nBOX', name: 'box', host: 'box' } };
        const instances = [
          { id: 'id-web', name: 'web', host: 'box', directory: DIRECTORY, version: '1.18.33', port: 1 },
        ];
        response.writeHead(held ? 304 : 200, { etag: '"list"', 'content-type': 'application/json' });
        if (!held) response.end(JSON.stringify({ ...list, instances }));
        return;
      }
      const sent = requestHttp(opencode.url + path, { method, headers: { ...headers, host: '127.0.0.1' } });
      sent.on('response', (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      sent.on('error', () => response.destroy());
      response.on('close', () => sent.destroy());
      sent.end(body);
    })();
  });
  await using api = await startFakeLocalApi({ peers: [{ ID: 'nBOX', HostName: 'box', TailscaleIPs: ['127.0.0.1'] }] });
  await using temp = tempDir('skew-record');
  const config = join(temp.path, 'config.json');
  await writeFile(config, JSON.stringify(CONFIG), { mode: 0o600 });
  await save('config', CONFIG);
  await using mcp = await startMcpChild({
    script: program('opencode-mcp'),
    args: ['--config', config],
    env: { TAILSCALE_SOCKET: api.socketPath, OPENCODE_NODE_PORT: String(service.port) },
  });
  await mcp.call('instances');
  await mcp.call('send', { instance: 'web', message: 'hello', request_id: 'r1' });
  await until('the list to be held', () => [...requests.keys()].some((kind) => kind.includes('prefer')));
  for (const name of ['read', 'list_sessions', 'get_status', 'get_diff', 'create_session'])
    await mcp.call(name, { instance: 'web' });
  await save(
    'client',
    [...requests.values()],
    [
      [String(service.port), '4095'],
      ['127.0.0.1', '100.64.0.2'],
    ],
  );
  const state = join(mcp.home, '.local', 'state', 'opencode-mcp');
  const [name = ''] = await readdir(join(state, 'requests'));
  const entry: unknown = JSON.parse(await readFile(join(state, 'requests', name), 'utf8'));
  await save('journal', { request: { instance: 'web', request_id: 'r1', message: 'hello' }, file: name, entry });
}

/** The files of the older wrapper on this machine and on a relay while it runs. */
async function recordFiles(): Promise<void> {
  await using sshd = await startSshd();
  await using sandbox = await openSandbox();
  const [here, relay] = [join(sandbox.home, 'registry'), join(sshd.home, 'registry')];
  const env = {
    ...connectedEnvironment(sandbox, here),
    RELAY_SSH_CMD: sshd.relaySshCommand,
    RELAY_REMOTE_REGISTRY_DIR: relay,
    INSTANCE_NAME: 'web',
  };
  const child = spawn(process.execPath, [program('opencode-connected'), '--headless'], {
    cwd: sandbox.directory,
    env,
    stdio: 'ignore',
  });
  const read = async (folder: string): Promise<Record<string, unknown>> => {
    const files: Record<string, unknown> = {};
    for (const path of (await filesIn(folder)).toSorted()) {
      const isSecret = path.includes('/.credentials/');
      const mode = ((await stat(path)).mode & 0o777).toString(8);
      files[path.slice(folder.length + 1)] = { mode, text: isSecret ? `${PASSWORD}\n` : await readFile(path, 'utf8') };
    }
    return files;
  };
  try {
    await until('both registrations', async () => {
      const files = [...(await filesIn(here)), ...(await filesIn(relay))];
      return files.filter((path) => basename(path) === 'web.json').length === 2;
    });
    const state = join(sandbox.home, '.local', 'state', 'opencode-mcp', 'connected');
    await save('files', { here: await read(here), relay: await read(relay), state: await read(state) }, [
      [here, '/home/ada/registry'],
      [sandbox.directory, DIRECTORY],
      [sandbox.home, '/home/ada'],
    ]);
  } finally {
    child.kill();
    await once(child, 'exit');
  }
}

await recordNodeService();
await recordClient();
await recordFiles();
