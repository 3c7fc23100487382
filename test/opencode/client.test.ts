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
/** Calls that would make a further change if they were repeated. */
const ONCE = new Set(
  'createSession fork rename remove prompt replyPermission replyQuestion rejectQuestion showToast'.split(' '),
);
const REPEATABLE = Object.entries(CALLS).filter(([name]) => !ONCE.has(name));

/** Endpoints by name; those in `fails` fail with that kind. */
class FakeEndpoints {
  /** As `endpoint method`. */
  readonly requests: string[] = [];
  /** The failed endpoints of each search for another one. */
  readonly searches: string[] = [];
  readonly fails = new Map<string, FailureKind>();
  readonly signals: AbortSignal[] = [];
  readonly #names: readonly string[];

  constructor(names: readonly string[], fails: Readonly<Record<string, FailureKind>> = {}) {
    this.#names = names;
    for (const [name, kind] of Object.entries(fails)) this.fails.set(name, kind);
  }

  readonly next: NextEndpoint = (failed) => {
    this.searches.push(failed.join(' '));
    const name = this.#names.find((one) => !failed.includes(one));
    return Promise.resolve(name === undefined ? undefined : this.endpoint(name));
  };

  endpoint(name: string): EndpointApi {
    const request = async (method: Method): Promise<unknown> => {
      this.requests.push(`${name} ${method}`);
      await Promise.resolve();
      const kind = this.fails.get(name);
      if (kind !== undefined) throw new RequestError(kind, `${name}: ${kind}`);
      return name;
    };
    const api = Object.fromEntries(Object.keys(CALLS).map((method) => [method, () => request(method as Method)]));
    const events: OpencodeApi['events'] = async (_, signal) => {
      if (signal !== undefined) this.signals.push(signal);
      await request('events');
      return { close: () => {}, async *[Symbol.asyncIterator]() {} };
    };
    return { key: name, api: { ...api, events } as unknown as OpencodeApi };
  }

  client(): OpencodeClient {
    return createClient(this.endpoint(this.#names[0] ?? ''), this.next);
  }
}

async function outcomeOf(call: Promise<unknown>): Promise<string> {
  return await call.then(
    (value) => `answered by ${String(value)}`,
    (error: unknown) => (error instanceof RequestError ? error.kind : String(error)),
  );
}

describe('a call whose endpoint fails', () => {
  test.each(['unreachable', 'broken', 'timeout'] as const)(
    'is repeated on the next endpoint if it is repeatable and the failure is %s; later calls use that endpoint',
    async (kind) => {
      for (const [name, call] of REPEATABLE) {
        const endpoints = new FakeEndpoints(['a', 'b'], { a: kind });
        const api = endpoints.client();
        expect([await call(api), await call(api)], name).toEqual(['b', 'b']);
        expect(endpoints.requests).toEqual([`a ${name}`, `b ${name}`, `b ${name}`]);
      }
    },
  );

  test.each(['status', 'locked', 'malformed', 'cancelled'] as const)(
    'is not repeated if the failure is %s, since the server answered or the caller left',
    async (kind) => {
      for (const [name, call] of REPEATABLE) {
        const endpoints = new FakeEndpoints(['a', 'b'], { a: kind });
        expect(await outcomeOf(call(endpoints.client())), name).toBe(kind);
        expect(endpoints.requests).toEqual([`a ${name}`]);
      }
    },
  );

  test('createSession is repeated on another endpoint only if nothing was sent', async () => {
    const endpoints = new FakeEndpoints(['a', 'b'], { a: 'unreachable' });
    expect(await CALLS.createSession(endpoints.client())).toBe('b');
    for (const kind of ['broken', 'timeout'] as const) {
      endpoints.fails.set('a', kind);
      expect(await outcomeOf(CALLS.createSession(endpoints.client()))).toBe(kind);
    }
    expect(endpoints.requests.filter((request) => request === 'b createSession')).toHaveLength(1);
  });

  test.each(['unreachable', 'broken', 'timeout'] as const)(
    'prompt is not repeated on another endpoint if the failure is %s',
    async (kind) => {
      const endpoints = new FakeEndpoints(['a', 'b'], { a: kind });
      expect(await outcomeOf(CALLS.prompt(endpoints.client()))).toBe(kind);
      expect(endpoints.requests).toEqual(['a prompt']);
    },
  );

  test('tries each endpoint once, and then reports all messages', async () => {
    const endpoints = new FakeEndpoints(['a', 'b', 'c'], { a: 'broken', b: 'broken', c: 'broken' });
    await expect(endpoints.client().statuses('/p')).rejects.toThrow(
      'a: broken; by another endpoint: b: broken; by another endpoint: c: broken',
    );
    expect(endpoints.requests).toEqual(['a statuses', 'b statuses', 'c statuses']);
  });

  test('tries no third endpoint after two timeouts: the server is slow', async () => {
    const endpoints = new FakeEndpoints(['a', 'b', 'c'], { a: 'timeout', b: 'timeout', c: 'timeout' });
    expect(await outcomeOf(endpoints.client().statuses('/p'))).toBe('timeout');
    expect(endpoints.requests).toEqual(['a statuses', 'b statuses']);
  });

  test('calls that fail together share one search', async () => {
    const endpoints = new FakeEndpoints(['a', 'b'], { a: 'broken' });
    const api = endpoints.client();
    expect(await Promise.all([api.statuses('/p'), api.sessions({}), api.permissions('/p')])).toEqual(['b', 'b', 'b']);
    expect(endpoints.searches).toEqual(['a']);
  });

  test('a call that also fails on the shared endpoint searches for another', async () => {
    const endpoints = new FakeEndpoints(['a', 'b', 'c'], { a: 'broken', b: 'broken' });
    const api = endpoints.client();
    expect(await Promise.all([api.statuses('/p'), api.sessions({})])).toEqual(['c', 'c']);
  });

  test('an endpoint that failed one call may serve a later one', async () => {
    const endpoints = new FakeEndpoints(['a', 'b'], { a: 'broken' });
    const api = endpoints.client();
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
    const endpoints = new FakeEndpoints(['a', 'b'], { a: kind });
    const late = { key: 'b', api: { ...endpoints.endpoint('b').api, abort: over } };
    return await outcomeOf(createClient(endpoints.endpoint('a'), () => Promise.resolve(late)).abort('ses_a'));
  }

  test('reports the error of the endpoint that may have acted', async () => {
    expect([await abortBy('broken'), await abortBy('timeout')]).toEqual(['broken', 'timeout']);
  });

  test('reports that the call was cancelled if nothing was sent to the first endpoint', async () => {
    expect(await abortBy('unreachable')).toBe('CallOver: the call was cancelled');
  });
});

describe('an endpoint that is left', () => {
  test('loses its event streams; those of the new one stay', async () => {
    const endpoints = new FakeEndpoints(['a', 'b']);
    const api = endpoints.client();
    await api.events('/p');
    endpoints.fails.set('a', 'timeout');
    await api.statuses('/p');
    await api.events('/p');
    expect(endpoints.signals.map(({ aborted }) => aborted)).toEqual([true, false]);
  });

  test('stays pinned', async () => {
    const endpoints = new FakeEndpoints(['a', 'b']);
    const api = endpoints.client();
    const pinned = api.pinned();
    expect(await api.leave()).toBe(true);
    await CALLS.prompt(pinned);
    expect(await api.statuses('/p')).toBe('b');
    expect(endpoints.requests).toEqual(['a prompt', 'b statuses']);
  });

  test('stays current if there is no other', async () => {
    const endpoints = new FakeEndpoints(['a']);
    const api = endpoints.client();
    expect(await api.leave()).toBe(false);
    expect(await api.statuses('/p')).toBe('a');
  });

  test.each(['unreachable', 'broken', 'timeout', 'status', 'malformed', 'locked'] as const)(
    'is left by events after the failure %s, since subscribing changes nothing',
    async (kind) => {
      const endpoints = new FakeEndpoints(['a', 'b'], { a: kind });
      const api = endpoints.client();
      await api.events('/p');
      expect(endpoints.requests).toEqual(['a events', 'b events']);
    },
  );
});
