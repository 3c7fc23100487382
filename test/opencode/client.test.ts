import { describe, expect, test } from 'vitest';

import type { OpencodeApi } from '../../src/opencode/api.ts';
import type { FailureKind } from '../../src/http/request-error.ts';
import { type NextEndpoint, type OpencodeClient, createClient, type EndpointApi } from '../../src/opencode/client.ts';
import { RequestError } from '../../src/http/exchange.ts';
import { CallOver } from '../../src/turns/call-limit.ts';

type Method = keyof OpencodeApi;

const CALLS: { readonly [M in Exclude<Method, 'events' | 'isIdempotent'>]: (api: OpencodeApi) => Promise<unknown> } = {
  sessions: (api) => api.sessions({}),
  session: (api) => api.session('ses_a'),
  createSession: (api) => api.createSession(),
  statuses: (api) => api.statuses('/p'),
  messages: (api) => api.messages('ses_a', { limit: 1 }),
  message: (api) => api.message('ses_a', 'msg_a'),
  permissions: (api) => api.permissions('/p'),
  questions: (api) => api.questions('/p'),
  prompt: (api) => api.prompt({ sessionId: 'ses_a', messageId: 'msg_a', partId: 'prt_a', text: 'x' }),
  abort: (api) => api.abort('ses_a'),
  replyPermission: (api) => api.replyPermission('/p', 'per_a', 'once'),
  replyQuestion: (api) => api.replyQuestion('/p', 'que_a', [['x']]),
  rejectQuestion: (api) => api.rejectQuestion('/p', 'que_a'),
  agents: (api) => api.agents('/p'),
  models: (api) => api.models('/p'),
  fork: (api) => api.fork('ses_a'),
  rename: (api) => api.rename('ses_a', 'x'),
  remove: (api) => api.remove('ses_a'),
  showToast: (api) => api.showToast('/p', 'x'),
  listFiles: (api) => api.listFiles('/p', ''),
  readFile: (api) => api.readFile('/p', 'a'),
  findText: (api) => api.findText('/p', 'x'),
  findFiles: (api) => api.findFiles('/p', 'x', 1),
  changedMessages: (api) => api.changedMessages('ses_a', { limit: 1 }),
  changedMessage: (api) => api.changedMessage('ses_a', 'msg_a'),
};
/** They change something, and not the same when they are repeated. */
const ONCE = new Set([
  'createSession',
  'fork',
  'rename',
  'remove',
  'prompt',
  'replyPermission',
  'replyQuestion',
  'rejectQuestion',
  'showToast',
]);
const REPEATABLE = Object.keys(CALLS).filter((name) => !ONCE.has(name));

/** Ways by name, each failing as told; every request made is recorded as `way method`. */
class FakeEndpoints {
  readonly requests: string[] = [];
  /** Which failures ways were asked for, in order. */
  readonly asked: string[] = [];
  readonly fails = new Map<string, FailureKind>();
  readonly #names: readonly string[];
  readonly signals: AbortSignal[] = [];

  constructor(...names: readonly string[]) {
    this.#names = names;
  }

  readonly next: NextEndpoint = (failed) => {
    this.asked.push(failed.join(' '));
    const name = this.#names.find((one) => !failed.includes(one));
    return Promise.resolve(name === undefined ? undefined : this.endpoint(name));
  };

  endpoint(name: string): EndpointApi {
    const ask = async (method: Method): Promise<unknown> => {
      this.requests.push(`${name} ${method}`);
      await Promise.resolve();
      const kind = this.fails.get(name);
      if (kind !== undefined) throw new RequestError(kind, `${name}: ${kind}`);
      return name;
    };
    const api = Object.fromEntries(Object.keys(CALLS).map((method) => [method, () => ask(method as Method)]));
    const events: OpencodeApi['events'] = async (_, signal) => {
      if (signal !== undefined) this.signals.push(signal);
      await ask('events');
      return { close: () => {}, async *[Symbol.asyncIterator]() {} };
    };
    return { key: name, api: { ...api, events } as unknown as OpencodeApi };
  }

  routed(): OpencodeClient {
    return createClient(this.endpoint(this.#names[0] ?? ''), this.next);
  }
}

async function kindOf(asking: Promise<unknown>): Promise<string> {
  return await asking.then(
    (value) => `answered by ${String(value)}`,
    (error: unknown) => (error instanceof RequestError ? error.kind : String(error)),
  );
}

describe('a call whose endpoint fails', () => {
  test.each(
    REPEATABLE.flatMap((name) => (['unreachable', 'broken', 'timeout'] as const).map((kind) => [name, kind] as const)),
  )('%s, %s: goes on by the next, which is in use from then on', async (name, kind) => {
    const endpoints = new FakeEndpoints('a', 'b');
    endpoints.fails.set('a', kind);
    const api = endpoints.routed();
    const call = CALLS[name as keyof typeof CALLS];
    expect(await call(api)).toBe('b');
    expect(await call(api)).toBe('b');
    expect(endpoints.requests).toEqual([`a ${name}`, `b ${name}`, `b ${name}`]);
  });

  test.each(
    REPEATABLE.flatMap((name) =>
      (['status', 'locked', 'malformed', 'cancelled'] as const).map((kind) => [name, kind] as const),
    ),
  )('%s, %s: the server has answered, or nobody waits, so nothing is repeated', async (name, kind) => {
    const endpoints = new FakeEndpoints('a', 'b');
    endpoints.fails.set('a', kind);
    expect(await kindOf(CALLS[name as keyof typeof CALLS](endpoints.routed()))).toBe(kind);
    expect(endpoints.requests).toEqual([`a ${name}`]);
  });

  test('createSession goes on only if nothing was sent', async () => {
    const endpoints = new FakeEndpoints('a', 'b');
    endpoints.fails.set('a', 'unreachable');
    expect(await CALLS.createSession(endpoints.routed())).toBe('b');
    for (const kind of ['broken', 'timeout'] as const) {
      endpoints.fails.set('a', kind);
      expect(await kindOf(CALLS.createSession(endpoints.routed()))).toBe(kind);
    }
    expect(endpoints.requests.filter((request) => request === 'b createSession')).toHaveLength(1);
  });

  test.each(['unreachable', 'broken', 'timeout'] as const)('prompt, %s: never by another endpoint', async (kind) => {
    const endpoints = new FakeEndpoints('a', 'b');
    endpoints.fails.set('a', kind);
    expect(await kindOf(CALLS.prompt(endpoints.routed()))).toBe(kind);
    expect(endpoints.requests).toEqual(['a prompt']);
  });

  test('tries each endpoint once, and then reports all messages', async () => {
    const endpoints = new FakeEndpoints('a', 'b', 'c');
    for (const name of ['a', 'b', 'c']) endpoints.fails.set(name, 'broken');
    await expect(endpoints.routed().statuses('/p')).rejects.toThrow(
      'a: broken; by another endpoint: b: broken; by another endpoint: c: broken',
    );
    expect(endpoints.requests).toEqual(['a statuses', 'b statuses', 'c statuses']);
  });

  test('tries no third endpoint after two timeouts: the server is slow', async () => {
    const endpoints = new FakeEndpoints('a', 'b', 'c');
    for (const name of ['a', 'b', 'c']) endpoints.fails.set(name, 'timeout');
    expect(await kindOf(endpoints.routed().statuses('/p'))).toBe('timeout');
    expect(endpoints.requests).toEqual(['a statuses', 'b statuses']);
  });

  test('calls that fail together share one search', async () => {
    const endpoints = new FakeEndpoints('a', 'b');
    endpoints.fails.set('a', 'broken');
    const api = endpoints.routed();
    expect(await Promise.all([api.statuses('/p'), api.sessions({}), api.permissions('/p')])).toEqual(['b', 'b', 'b']);
    expect(endpoints.asked).toEqual(['a']);
  });

  test('a call that the shared endpoint does not help finds its own', async () => {
    const endpoints = new FakeEndpoints('a', 'b', 'c');
    endpoints.fails.set('a', 'broken');
    endpoints.fails.set('b', 'broken');
    const api = endpoints.routed();
    expect(await Promise.all([api.statuses('/p'), api.sessions({})])).toEqual(['c', 'c']);
  });

  test('an endpoint that failed one call may serve a later one', async () => {
    const endpoints = new FakeEndpoints('a', 'b');
    endpoints.fails.set('a', 'broken');
    const api = endpoints.routed();
    await api.statuses('/p');
    endpoints.fails.delete('a');
    endpoints.fails.set('b', 'broken');
    expect(await api.statuses('/p')).toBe('a');
  });
});

describe('a call that ends before the next endpoint is tried', () => {
  const over = (): never => {
    throw new CallOver('the call was cancelled');
  };

  async function abortBy(kind: FailureKind): Promise<string> {
    const endpoints = new FakeEndpoints('a', 'b');
    endpoints.fails.set('a', kind);
    const late = { key: 'b', api: { ...endpoints.endpoint('b').api, abort: over } };
    return await kindOf(createClient(endpoints.endpoint('a'), () => Promise.resolve(late)).abort('ses_a'));
  }

  test('reports the error of the endpoint that may have acted', async () => {
    expect([await abortBy('broken'), await abortBy('timeout')]).toEqual(['broken', 'timeout']);
  });

  test('ends without an error of the first if that sent nothing', async () => {
    expect(await abortBy('unreachable')).toBe('CallOver: the call was cancelled');
  });
});

describe('an endpoint that is left', () => {
  test('loses its event streams; those of the new one stay', async () => {
    const endpoints = new FakeEndpoints('a', 'b');
    const api = endpoints.routed();
    await api.events('/p');
    endpoints.fails.set('a', 'timeout');
    await api.statuses('/p');
    await api.events('/p');
    expect(endpoints.signals.map(({ aborted }) => aborted)).toEqual([true, false]);
  });

  test('stays pinned', async () => {
    const endpoints = new FakeEndpoints('a', 'b');
    const api = endpoints.routed();
    const pinned = api.pinned();
    expect(await api.leave()).toBe(true);
    await CALLS.prompt(pinned);
    expect(await api.statuses('/p')).toBe('b');
    expect(endpoints.requests).toEqual(['a prompt', 'b statuses']);
  });

  test('stays current if there is no other', async () => {
    const endpoints = new FakeEndpoints('a');
    const api = endpoints.routed();
    expect(await api.leave()).toBe(false);
    expect(await api.statuses('/p')).toBe('a');
  });

  test.each(['unreachable', 'broken', 'timeout', 'status', 'malformed', 'locked'] as const)(
    'events, %s: subscribing changes nothing, so another way is tried',
    async (kind) => {
      const endpoints = new FakeEndpoints('a', 'b');
      endpoints.fails.set('a', kind);
      const api = endpoints.routed();
      await api.events('/p');
      expect(endpoints.requests).toEqual(['a events', 'b events']);
    },
  );
});
