import { type OutgoingHttpHeaders, request as requestHttp, type IncomingMessage } from 'node:http';
import { text as readText } from 'node:stream/consumers';

import type { StartedFleet } from '../../src/page/lazy-runtime.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { CAPABILITY, populate, runService, SELF } from '../node/stage.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { MemoryLocalApi, tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

/** The address of a colleague: another user than the node's, with a grant to drive. */
export const COLLEAGUE = '127.0.0.6';
/** A phone's user agent. */
const PHONE = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15';

export type Line = Readonly<Record<string, unknown>>;

export type Lines = ReturnType<typeof linesOf>;
export type PageAnswer = Awaited<ReturnType<ReturnType<typeof browser>['call']>>;

export interface PageOptions {
  readonly from?: string;
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
}

export type PageStage = Awaited<ReturnType<typeof openPageStage>>;

export interface PageStageOptions extends Pick<
  Parameters<typeof runService>[2] & object,
  'clock' | 'approve' | 'opencodeStateDir'
> {
  readonly startAll?: () => Promise<StartedFleet>;
  readonly fake?: Parameters<typeof startFakeOpencode>[0];
}

/** A node service in this process with one fake instance `one`, and its page as tailnet callers see it. */
export async function openPageStage({ fake: fakeOptions, ...options }: PageStageOptions = {}) {
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
  const origin = `http://${SELF}:${running.port}`;
  const requests = browser({ host: SELF, port: running.port }, origin);
  return {
    ...running,
    api,
    registry,
    fake,
    origin,
    ...requests,
    /** Streams a session of `one`. */
    follow(session: string, options: PageOptions = {}, more: Readonly<Record<string, string>> = {}) {
      const query = new URLSearchParams({ instance: 'one', session, ...more });
      return requests.stream(`v1/session?${query.toString()}`, options);
    },
    /** Starts a turn that waits for a permission, and returns the body of a `respond` without the reply. */
    waiting(permission: Partial<Parameters<FakeOpencode['addPermission']>[0]> = {}) {
      const { id: session } = fake.addSession();
      fake.state.begin(session, 'go on');
      const { id: request } = fake.addPermission({ sessionID: session, ...permission });
      return { instance: 'one', session, request };
    },
    async [Symbol.asyncDispose]() {
      await running.service.close();
      await fake.close();
      await temp.close();
    },
  };
}

/** Sends requests as a page of `origin` does. */
export function browser(
  at: { readonly host: string; readonly port: number },
  origin: string,
  more: OutgoingHttpHeaders = {},
) {
  const pageHeaders = { 'user-agent': PHONE, 'x-opencode-mcp-page': '1', host: new URL(origin).host, ...more };
  const call = async (path: string, { headers = {}, ...options }: PageOptions = {}) => {
    const response = await send(at, path, { ...options, headers: { ...pageHeaders, ...headers } });
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
    /** Sends a request with the headers of the page's own scripts. */
    call,
    post: (name: string, body: object, { headers = {}, ...options }: PageOptions = {}) =>
      call(`${PAGE_PREFIX}v1/${name}`, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { origin, 'content-type': 'application/json', ...headers },
        ...options,
      }),
    stream: async (path: string, { headers = {}, ...options }: PageOptions = {}) =>
      linesOf(await send(at, PAGE_PREFIX + path, { ...options, headers: { ...pageHeaders, ...headers } })),
  };
}

function send(
  { host, port }: { readonly host: string; readonly port: number },
  path: string,
  { from = COLLEAGUE, method = 'GET', headers = {}, body }: PageOptions,
): Promise<IncomingMessage> {
  const responding = new Promise<IncomingMessage>((resolve, reject) => {
    const request = requestHttp({ host, port, path, method, headers, localAddress: from, agent: false });
    request.once('error', reject).once('response', resolve);
    request.end(body);
  });
  return within(responding, `${method} ${path}`);
}

/** The sessions in a line of the list. */
export function sessionsIn(line: Line): readonly Line[] {
  return (line['sessions'] ?? []) as readonly Line[];
}

/** A stream of JSON lines as a browser reads it. */
function linesOf(response: IncomingMessage) {
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
    all: all as readonly Line[],
    closed: () => response.closed,
    /** Resolves with the first line that fits, once it has arrived. */
    find: (what: string, fits: (line: Line) => boolean) => until(what, () => all.find(fits)),
    async [Symbol.asyncDispose]() {
      response.destroy();
      await Promise.resolve();
    },
  };
}
