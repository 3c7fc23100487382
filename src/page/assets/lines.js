// Requests to the node: streams of JSON lines that reconnect by themselves, and plain calls.
const BASE = '/opencode-mcp/page/v1';
/** Links, forms and pages of other origins cannot send this header. */
const HEADERS = { 'x-opencode-mcp-page': '1' };
/** The node sends a heartbeat every 15 s: more than two are missing. */
const SILENCE_MS = 40_000;
/** When the page comes into view: one heartbeat is missing, as after a sleep of the device. */
const SILENCE_IN_SIGHT_MS = 20_000;
const NO_ANSWER = 'The node does not answer.';
const BACKOFF_MS = [300, 1000, 2000, 4000, 8000, 15_000];

/** A refusal in the node's words. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Follows a stream until `close`. `onState` gets `connecting`, `live` or `lost`; `lost` has a reason unless the node ended the stream. */
export function followLines(path, { onLine, onState }) {
  let attempt = 0;
  let seenAtMs = Date.now();
  let connection;
  let timer;
  let closed = false;

  async function connect() {
    clearTimeout(timer);
    const mine = new AbortController();
    connection?.abort();
    connection = mine;
    seenAtMs = Date.now();
    onState('connecting');
    watch();
    try {
      const { body } = await get(path, mine.signal);
      await readLines(body, mine.signal);
      if (!closed && connection === mine) retry();
    } catch (error) {
      if (!closed && connection === mine) retry(error instanceof Refusal ? error.message : NO_ANSWER);
    }
  }

  async function readLines(body, signal) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      seenAtMs = Date.now();
      attempt = 0;
      onState('live');
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines) if (line !== '') onLine(JSON.parse(line));
    }
  }

  function retry(reason) {
    connection?.abort();
    connection = undefined;
    onState('lost', reason);
    const waitMs = BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)] * (0.75 + Math.random() / 2);
    attempt += 1;
    clearTimeout(timer);
    timer = setTimeout(connect, waitMs);
  }

  function watch() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (Date.now() - seenAtMs >= SILENCE_MS) void connect();
      else watch();
    }, SILENCE_MS / 8);
  }

  /** Reconnects without backoff when the page comes into view or the network is back, if the stream was silent for long. */
  function look() {
    if (document.visibilityState !== 'visible') return;
    if (connection !== undefined && Date.now() - seenAtMs < SILENCE_IN_SIGHT_MS) return;
    attempt = 0;
    void connect();
  }

  const wakers = [
    [document, 'visibilitychange'],
    [window, 'online'],
    [window, 'pageshow'],
  ];
  for (const [target, name] of wakers) target.addEventListener(name, look);
  void connect();
  return {
    close() {
      closed = true;
      clearTimeout(timer);
      connection?.abort();
      for (const [target, name] of wakers) target.removeEventListener(name, look);
    },
  };
}

/** Reads a finite stream of lines. */
export async function fetchLines(path, signal) {
  const text = await (await get(path, signal)).text();
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

export async function fetchJson(path, signal) {
  return (await get(path, signal)).json();
}

/** Rejects with a sentence for a person. */
export async function postJson(path, body) {
  let response;
  try {
    response = await fetch(BASE + path, {
      method: 'POST',
      headers: { ...HEADERS, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      cache: 'no-store',
    });
  } catch (error) {
    throw new Error(`${NO_ANSWER} Nothing is lost: try again.`, { cause: error });
  }
  if (!response.ok) throw await refusalOf(response);
  return response.json();
}

/** Random. Not by `randomUUID`, which browsers offer only to pages loaded by https or from localhost. */
export function newRequestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function get(path, signal) {
  const response = await fetch(BASE + path, { headers: HEADERS, signal, cache: 'no-store' });
  if (!response.ok) throw await refusalOf(response);
  return response;
}

async function refusalOf(response) {
  const body = await response.json().catch(() => ({}));
  const words = typeof body.error === 'string' ? body.error : `The node answered with status ${response.status}.`;
  return new Refusal(response.status, words);
}
