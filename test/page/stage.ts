import { type OutgoingHttpHeaders, request as requestHttp, type IncomingMessage } from 'node:http';
import { text as readText } from 'node:stream/consumers';

import type { StartedFleet } from '../../src/page/lazy-runtime.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { CAPABILITY, populate, type RunningService, runService, SELF } from '../node/stage.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { MemoryLocalApi, tailnetNode, whoisOf } from '../rig/memory-local-api.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

/** A colleague who was granted to drive, and is not the user of the node. */
export const COLLEAGUE = '127.0.0.6';
/** A phone's user agent. */
const PHONE = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15';

export type Line = Readonly<Record<string, unknown>>;

/** A stream of JSON lines as a browser reads it. */
export interface Lines extends AsyncDisposable {
  readonly response: IncomingMessage;
  readonly all: readonly Line[];
  readonly closed: () => boolean;
  /** The first line that fits, of those that came or will come. */
  find(what: string, fits: (line: Line) => boolean): Promise<Line>;
}

export interface PageAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
  readonly json: Line;
}

export interface PageOptions {
  readonly from?: string;
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
}

export interface PageStage extends AsyncDisposable, RunningService {
  readonly api: MemoryLocalApi;
  readonly registry: Registry;
  readonly fake: FakeOpencode;
  readonly origin: string;
  /** With the headers of the page's own scripts, in a browser. */
  call(path: string, options?: PageOptions): Promise<PageAnswer>;
  post(name: string, body: object, options?: PageOptions): Promise<PageAnswer>;
  stream(path: string, options?: PageOptions): Promise<Lines>;
}

export interface PageStageOptions extends Pick<Parameters<typeof runService>[2] & object, 'clock' | 'approve'> {
  readonly startAll?: () => Promise<StartedFleet>;
  readonly fake?: Parameters<typeof startFakeOpencode>[0];
}

/** A node service in this process with one fake instance `one`, and its page as callers of the tailnet see it. */
export async function openPageStage({ fake: fakeOptions, ...options }: PageStageOptions = {}): Promise<PageStage> {
  const temp = tempDir('opencode-mcp-page');
  const registry = await openRegistry(`${temp.path}/registry`);
  const fake = await startFakeOpencode({ password: 'pa55word', ...fakeOptions });
  await registry.add({ name: 'one', port: fake.port, cwd: fake.directory, id: 'inst_one' }, { password: 'pa55word' });
  const api = new MemoryLocalApi(tailnetNode({ id: 'self', addresses: [SELF] }));
  populate(api);
  const colleague = tailnetNode({ id: 'colleague', addresses: [COLLEAGUE], userId: 'user-cleo' });
  api.join(colleague, whoisOf(colleague, 'cleo@example.com', { [CAPABILITY]: [{ role: 'drive' }] }));
  const running = await runService(registry.path, api, options);
  await until('the service to listen', () => running.service.addresses.includes(SELF));
  await until('the instance to be found', async () => (await running.instances.list()).length > 0);
  const at = { host: SELF, port: running.port };
  const origin = `http://${SELF}:${running.port}`;
  return {
    ...running,
    api,
    registry,
    fake,
    origin,
    ...browser(at, origin),
    async [Symbol.asyncDispose]() {
      await running.service.close();
      await fake.close();
      await temp.close();
    },
  };
}

/** Requests as a page of that origin sends them. */
export function browser(
  at: { readonly host: string; readonly port: number },
  origin: string,
  more: OutgoingHttpHeaders = {},
): Pick<PageStage, 'call' | 'post' | 'stream'> {
  const own = { 'user-agent': PHONE, 'x-opencode-mcp-page': '1', host: new URL(origin).host, ...more };
  const call = async (path: string, { headers = {}, ...options }: PageOptions = {}): Promise<PageAnswer> => {
    const response = await send(at, path, { ...options, headers: { ...own, ...headers } });
    const text = await within(readText(response), path);
    const isJson = response.headers['content-type']?.startsWith('application/json') === true;
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      text,
      json: isJson ? (JSON.parse(text) as Line) : {},
    };
  };
  return {
    call,
    post: (name, body, { headers = {}, ...options } = {}) =>
      call(`${PAGE_PREFIX}v1/${name}`, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { origin, 'content-type': 'application/json', ...headers },
        ...options,
      }),
    stream: async (path, { headers = {}, ...options } = {}) =>
      linesOf(await send(at, PAGE_PREFIX + path, { ...options, headers: { ...own, ...headers } })),
  };
}

function send(
  { host, port }: { readonly host: string; readonly port: number },
  path: string,
  { from = COLLEAGUE, method = 'GET', headers = {}, body }: PageOptions,
): Promise<IncomingMessage> {
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    const request = requestHttp({ host, port, path, method, headers, localAddress: from, agent: false });
    request.once('error', reject).once('response', resolve);
    request.end(body);
  });
  return within(answered, `${method} ${path}`);
}

function linesOf(response: IncomingMessage): Lines {
  const all: Line[] = [];
  let rest = '';
  response.on('error', () => {});
  response.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') all.push(JSON.parse(line) as Line);
  });
  return {
    response,
    all,
    closed: () => response.closed,
    find: (what, fits) => until(what, () => all.find(fits)),
    async [Symbol.asyncDispose]() {
      response.destroy();
      await Promise.resolve();
    },
  };
}
