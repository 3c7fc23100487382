import { randomBytes } from 'node:crypto';

/** The objects a fake opencode serves, with the fields and the order of a real 1.18.33. */

export interface FakeSession {
  readonly id: string;
  readonly slug: string;
  readonly projectID: string;
  readonly directory: string;
  readonly path: string;
  readonly parentID?: string;
  readonly cost: number;
  readonly tokens: object;
  readonly title: string;
  readonly version: string;
  readonly time: { readonly created: number; readonly updated: number; readonly archived?: number };
}

export interface FakePart {
  readonly id: string;
  readonly sessionID: string;
  readonly messageID: string;
  readonly type: string;
  readonly text?: string;
  readonly [field: string]: unknown;
}

export interface FakeMessage {
  readonly info: {
    readonly id: string;
    readonly sessionID: string;
    readonly role: 'user' | 'assistant';
    readonly parentID?: string;
    readonly time: { readonly created: number; readonly completed?: number };
    readonly [field: string]: unknown;
  };
  readonly parts: readonly FakePart[];
}

type IdKind = 'ses' | 'msg' | 'prt' | 'per' | 'que' | 'evt';

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const COUNTER_RANGE = 0x1000;
const SPAN = 2n ** 48n;

let lastMs = 0;
let counter = 0;

/** `<kind>_` + 12 hex digits of time and counter + 14 of base 62. Session ids count down, so that the newest sorts first. */
export function newId(kind: IdKind): string {
  const now = Date.now();
  counter = now === lastMs ? counter + 1 : 1;
  lastMs = now;
  const moment = (BigInt(now) * BigInt(COUNTER_RANGE) + BigInt(counter)) % SPAN;
  const hex = (kind === 'ses' ? SPAN - 1n - moment : moment).toString(16).padStart(12, '0');
  const tail = Array.from(randomBytes(14), (byte) => BASE62.charAt(byte % BASE62.length)).join('');
  return `${kind}_${hex}${tail}`;
}

export function newSession(fields: Partial<FakeSession> & Pick<FakeSession, 'directory' | 'version'>): FakeSession {
  const now = Date.now();
  return {
    id: newId('ses'),
    slug: 'quiet-harbor',
    projectID: 'fake-project',
    path: '',
    cost: 0,
    tokens: { input: 0, output: 0, reasoning: 0, cache: { read: 0, write: 0 } },
    title: `New session - ${new Date(now).toISOString()}`,
    time: { created: now, updated: now },
    ...fields,
  };
}

export function userMessage(
  sessionID: string,
  text: string,
  ids: { readonly message?: string; readonly part?: string } = {},
): FakeMessage {
  const id = ids.message ?? newId('msg');
  return {
    info: {
      id,
      sessionID,
      role: 'user',
      time: { created: Date.now() },
      agent: 'build',
      model: { providerID: 'fake', modelID: 'fake-model' },
    },
    parts: [{ id: ids.part ?? newId('prt'), sessionID, messageID: id, type: 'text', text }],
  };
}

/** An assistant message as it is when it has just begun: without `time.completed`, `finish` and parts. */
export function assistantMessage(sessionID: string, parentID: string, directory: string): FakeMessage {
  return {
    info: {
      id: newId('msg'),
      parentID,
      role: 'assistant',
      mode: 'build',
      agent: 'build',
      path: { cwd: directory, root: directory },
      cost: 0,
      tokens: { input: 0, output: 0, reasoning: 0, cache: { read: 0, write: 0 } },
      modelID: 'fake-model',
      providerID: 'fake',
      time: { created: Date.now() },
      sessionID,
    },
    parts: [],
  };
}
