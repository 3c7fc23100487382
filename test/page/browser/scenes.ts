import type { PageLine } from '../../rig/fake/page-api.ts';

const MINUTE_MS = 60_000;
/** The scripted node's time. */
export const NOW_MS = Date.UTC(2026, 4, 12, 9, 30);

export const minutesAgo = (minutes: number): number => NOW_MS - minutes * MINUTE_MS;

export interface SceneSession {
  readonly instance: string;
  readonly host: string;
  readonly directory: string;
  readonly id: string;
  readonly title: string;
  readonly state: string;
  readonly sinceMs: number;
  readonly reason?: string;
  readonly waiting: readonly { readonly kind: string; readonly id: string; readonly text: string }[];
}

/** A list of these sessions, seen by the node's own user. */
export function fleetOf(sessions: readonly SceneSession[], more: PageLine = {}): PageLine {
  const instances = sessions.map(({ instance, host, directory }) => ({
    name: instance,
    host,
    directory,
    state: 'idle',
  }));
  return {
    at: NOW_MS,
    you: { name: 'ada@example.com', role: 'drive', all: true },
    machines: [...new Set(sessions.map(({ host }) => host))].map((host) => ({ host, state: 'ok' })),
    instances: [...new Map(instances.map((one) => [one.name, one])).values()],
    sessions,
    notes: [],
    ...more,
  };
}

export function session(id: string, more: Partial<SceneSession> = {}): SceneSession {
  return {
    instance: 'desk-shop',
    host: 'desk',
    directory: '/home/ada/code/shop',
    id,
    title: `Session ${id}`,
    state: 'busy',
    sinceMs: minutesAgo(4),
    waiting: [],
    ...more,
  };
}

export const SESSION_LINK = '#/s/desk-shop/ses_pay';
/** Links to the permission request of that session. */
export const REQUEST_LINK = `${SESSION_LINK}/per_1`;

export const COMMAND = 'git push --force-with-lease origin release/2026.05 && npm publish --access public --tag next';

/** A permission of `ses_pay`, as in a session's stream. */
export const PERMISSION: PageLine & { readonly id: string } = {
  id: 'per_1',
  sessionId: 'ses_pay',
  kind: 'permission',
  permission: 'bash',
  command: COMMAND,
  patterns: [COMMAND],
  always: ['git push *', 'npm publish *'],
};

export const QUESTION: PageLine & { readonly id: string } = {
  id: 'que_1',
  sessionId: 'ses_pay',
  kind: 'question',
  questions: [
    {
      header: 'Storage',
      question: 'Where shall the sessions be kept?',
      options: [
        { label: 'Postgres', description: 'The database that is there already' },
        { label: 'Redis', description: 'Faster, one more service to run' },
      ],
      multiple: false,
      custom: true,
    },
    {
      question: 'Which checks shall run before each commit?',
      options: [{ label: 'Types' }, { label: 'Lint' }, { label: 'Unit tests' }],
      multiple: true,
      custom: false,
    },
  ],
};

/** Three machines: one session asks, two run, one is done; a machine is offline. */
export function threeMachines(): PageLine {
  const sessions = [
    session('ses_pay', {
      title: 'Retry failed payments, release it',
      state: 'waiting',
      sinceMs: minutesAgo(3),
      waiting: [{ kind: 'permission', id: PERMISSION.id, text: COMMAND }],
    }),
    session('ses_search', {
      instance: 'laptop-search',
      host: 'laptop',
      directory: '/home/ada/src/search',
      title: 'Index only what changed since the last crawl',
      sinceMs: minutesAgo(12),
    }),
    session('ses_train', {
      instance: 'gpu-vision',
      host: 'gpu',
      directory: '/srv/vision',
      title: 'Find out why validation loss jumps at epoch 12',
      state: 'retrying',
      reason: 'overloaded, attempt 2',
      sinceMs: minutesAgo(41),
    }),
    session('ses_docs', {
      instance: 'laptop-docs',
      host: 'laptop',
      directory: '/home/ada/src/docs',
      title: 'Rewrite the install page',
      state: 'idle',
      sinceMs: minutesAgo(55),
    }),
  ];
  const fleet = fleetOf(sessions);
  return {
    ...fleet,
    machines: [
      { host: 'desk', state: 'ok' },
      { host: 'laptop', state: 'ok' },
      { host: 'gpu', state: 'ok' },
      { host: 'attic', state: 'offline', reason: 'last seen 2 days ago' },
    ],
    instances: [
      ...(fleet['instances'] as PageLine[]),
      { name: 'desk-dotfiles', host: 'desk', directory: '/home/ada/dotfiles', state: 'idle', version: '1.19.3' },
    ],
  };
}

/** The first lines of the stream of `ses_pay` while it is idle. */
export function restingSession(): PageLine[] {
  return paySession([]).map((line) => (line['kind'] === 'session' ? { ...line, state: 'idle' } : line));
}

/** The first lines of the stream of `ses_pay`. */
export function paySession(asks: readonly PageLine[] = [PERMISSION]): PageLine[] {
  const head = { title: 'Retry failed payments, release it', directory: '/home/ada/code/shop', canDrive: true };
  return [
    { kind: 'session', ...head, state: asks.length > 0 ? 'waiting' : 'busy' },
    { kind: 'messages', messages: [USER_MESSAGE, ANSWER] },
    { kind: 'asks', asks },
  ];
}

const USER_MESSAGE = {
  id: 'msg_1',
  role: 'user',
  atMs: minutesAgo(9),
  done: true,
  parts: [
    {
      id: 'prt_1',
      kind: 'text',
      text: 'Failed payments should be retried three times, with a growing pause. Then release it as next.',
    },
  ],
};

const ANSWER = {
  id: 'msg_2',
  role: 'assistant',
  atMs: minutesAgo(8),
  done: false,
  parts: [
    { id: 'prt_2', kind: 'reasoning', text: 'The queue retries at once today. I need a pause per attempt.' },
    { id: 'prt_3', kind: 'text', text: 'I will look at how the queue retries **today**.' },
    {
      id: 'prt_4',
      kind: 'tool',
      tool: 'read',
      title: 'src/payments/queue.ts',
      state: 'done',
      text: 'export class Queue {}',
    },
    { id: 'prt_5', kind: 'tool', tool: 'edit', title: 'src/payments/queue.ts', state: 'done', text: '' },
    { id: 'prt_6', kind: 'tool', tool: 'bash', title: 'npm test', state: 'done', text: '41 passed' },
    {
      id: 'prt_7',
      kind: 'text',
      text: 'Each attempt now waits `2 ** attempt` seconds:\n\n```ts\nconst pauseMs = 1000 * 2 ** attempt;\n```\n\nAll 41 tests pass. I push the branch and publish it.',
    },
    { id: 'prt_8', kind: 'tool', tool: 'bash', title: COMMAND, state: 'running', text: '' },
  ],
};

export const CHANGES: PageLine = {
  files: [
    {
      path: 'src/payments/queue.ts',
      added: 3,
      removed: 1,
      patch: [
        '--- a/src/payments/queue.ts',
        '+++ b/src/payments/queue.ts',
        '@@ -12,5 +12,7 @@ export class Queue {',
        '   async retry(job: Job): Promise<void> {',
        '-    await this.run(job);',
        '+    const pauseMs = 1000 * 2 ** job.attempt;',
        '+    await this.clock.sleep(pauseMs);',
        '+    await this.run({ ...job, attempt: job.attempt + 1 });',
        '   }',
        '',
      ].join('\n'),
    },
    { path: 'test/payments/queue.test.ts', added: 41, removed: 0 },
  ],
  more: 0,
};

/** More sessions than fit on a screen. */
export function manySessions(count: number): PageLine {
  const states = ['waiting', 'busy', 'idle', 'busy', 'idle', 'failed', 'interrupted', 'idle', 'retrying', 'idle'];
  const hosts = ['desk', 'laptop', 'gpu', 'build-01', 'build-02'];
  const longTitle = 'Make the importer read the new format, and keep reading the old one for a while';
  const sessions = Array.from({ length: count }, (_, at) => {
    const state = states[at % states.length] ?? 'idle';
    const host = hosts[at % hosts.length] ?? 'desk';
    const kind = at % 20 === 0 ? 'question' : 'permission';
    return session(`ses_${at}`, {
      instance: `${host}-project-${at % 20}`,
      host,
      directory: `/home/ada/code/project-${at % 20}`,
      title: `${at}. ${at % 3 === 0 ? longTitle : 'Fix the flaky test'}`,
      state,
      sinceMs: minutesAgo(at * 3 + 1),
      ...(state === 'failed' && { reason: 'The provider refused the request: credit balance too low' }),
      waiting: state === 'waiting' ? [{ kind, id: `ask_${at}`, text: 'npm install --save-dev prettier' }] : [],
    });
  });
  return fleetOf(sessions, { notes: ['2 candidates were left out: run opencode-mcp doctor'] });
}
