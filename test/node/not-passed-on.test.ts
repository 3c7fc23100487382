import { describe, expect, test } from 'vitest';

import type { OpencodeApi } from '../../src/opencode/api.ts';
import { opencode1Api } from '../../src/opencode/dialects/opencode-1.ts';
import { createClient } from '../../src/opencode/client.ts';
import { RequestError } from '../../src/http/exchange.ts';
import { MIN_READ_INTERVAL_MS } from '../../src/node/tailnet-view.ts';
import { tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import {
  CAPABILITY,
  type NodeStage,
  type NodeStageOptions,
  openClockedStage,
  openNodeStage,
  SELF,
  trustingPorts,
} from './stage.ts';

const CALLER = '127.0.0.1';
const SESSION = 'ses_0000000000000000000000000';

/** The API of the instance, or of another path of its node service. */
function apiOf(stage: NodeStage, path = stage.path()): OpencodeApi {
  return opencode1Api({ endpoint: { url: `http://${SELF}:${stage.port}${path}`, route: 'tailnet' } });
}

/** A stage whose tailnet grants our client's machine this role. */
async function open(role?: 'read' | 'drive', options: NodeStageOptions = {}): Promise<NodeStage> {
  const stage = await openClockedStage(options);
  const node = tailnetNode({ id: 'us', addresses: [CALLER], userId: 'user-zoe' });
  stage.api.join(node, whoisOf(node, 'zoe@example.com', role === undefined ? {} : { [CAPABILITY]: [{ role }] }));
  await stage.clock.advance(MIN_READ_INTERVAL_MS);
  return stage;
}

/** An instance without sessions that answers with these headers. */
const withoutSessions = (headers: Readonly<Record<string, string>> = {}): NodeStageOptions => ({
  handler({ url }, response) {
    const isList = url?.startsWith('/session?') === true;
    response
      .writeHead(isList ? 200 : 404, { 'content-type': 'application/json', ...headers })
      .end(isList ? '[]' : '{"name":"NotFoundError","data":{"message":"Session not found"}}');
  },
});

async function failure(call: Promise<unknown>): Promise<{ kind: string; status: number | undefined; message: string }> {
  const error = await call.then(
    (value) => new Error(`Expected a refusal, got ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (!(error instanceof RequestError)) throw error;
  return { kind: error.kind, status: error.status, message: error.message };
}

describe('a refusal of the node service differs from an answer of the instance', () => {
  test('a session that the instance does not have is missing, whatever the Proxy-Status header', async () => {
    await using stage = await open('drive', withoutSessions({ 'proxy-status': 'liar; error=destination_not_found' }));
    expect(await apiOf(stage).session(SESSION)).toBeUndefined();
  });

  test('a missing instance is an error, and does not mean that the session is missing', async () => {
    await using stage = await open('drive', withoutSessions());
    const gone = apiOf(stage, `${INSTANCE_PREFIX}other`);
    for (const call of [
      () => gone.session(SESSION),
      () => gone.message(SESSION, 'msg_00000000000000'),
      () => gone.events('/p', new AbortController().signal),
      () => gone.replyPermission('/p', 'per_1', 'once', undefined),
    ])
      expect(await failure(call())).toMatchObject({
        kind: 'unreachable',
        status: 404,
        message: expect.stringContaining('no such instance here') as string,
      });
  });

  test('a request that must not be repeated takes another route if the first node service did not pass it on', async () => {
    await using stage = await open('drive', {
      handler: (_, response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('true'),
    });
    const gone = { key: 'gone', api: apiOf(stage, `${INSTANCE_PREFIX}other`) };
    const api = createClient(gone, () => Promise.resolve({ key: 'there', api: apiOf(stage) }));
    expect(await api.replyPermission('/p', 'per_1', 'once', undefined)).toBe(true);
    expect(stage.seen).toHaveLength(1);
  });

  test('a session that a reader may not see is missing', async () => {
    await using stage = await open('read', withoutSessions());
    expect(await apiOf(stage).session(SESSION)).toBeUndefined();
    const prompt = { sessionId: SESSION, messageId: 'msg_1', partId: 'prt_1', text: 'hi' };
    expect(await failure(apiOf(stage).prompt(prompt))).toMatchObject({
      kind: 'unreachable',
      status: 403,
      message: expect.stringContaining("the proxy answered \"Your role here is 'read'") as string,
    });
  });

  test.each<[string, () => Promise<NodeStage>, (api: OpencodeApi) => Promise<unknown>, object]>([
    ['the caller has no right', () => open(), (api) => api.session(SESSION), { kind: 'unreachable', status: 403 }],
    [
      'nothing listens on the instance’s port',
      async () => {
        const stage = await open('drive', { ports: trustingPorts });
        await stage.instance.close();
        return stage;
      },
      (api) => api.statuses('/p'),
      { kind: 'unreachable', status: 502, message: expect.stringContaining('ECONNREFUSED') },
    ],
    [
      'the connection to the instance broke, so it may have acted',
      () => open('drive', { handler: (request) => void request.socket.destroy() }),
      (api) => api.abort(SESSION),
      { kind: 'status', status: 502 },
    ],
    [
      'whois fails',
      async () => {
        const stage = await openNodeStage();
        stage.api.callers.set(CALLER, () => Promise.reject(new Error('tailscaled is busy')));
        return stage;
      },
      (api) => api.statuses('/p'),
      { kind: 'unreachable', status: 503 },
    ],
  ])('a call fails if %s', async (_, openStage, call, expected) => {
    await using stage = await openStage();
    expect(await failure(call(apiOf(stage)))).toMatchObject(expected);
  });
});
