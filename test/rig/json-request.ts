/** The Authorization header of opencode's user; empty without a password. */
export function basicAuth(password: string | undefined): Readonly<Record<string, string>> {
  if (password === undefined) return {};
  return { authorization: `Basic ${Buffer.from(`opencode:${password}`).toString('base64')}` };
}

interface JsonRequest {
  readonly headers: Readonly<Record<string, string>>;
  readonly method: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly timeoutMs: number;
}

export function requestJson(url: URL, { headers, method, body, timeoutMs }: JsonRequest): Promise<Response> {
  return fetch(url, {
    method,
    headers: {
      // Asks for a new connection: a restart may have cut a kept one.
      connection: 'close',
      // Node 20's fetch fails if the connection ends while it still unpacks an answer of megabytes.
      'accept-encoding': 'identity',
      ...headers,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(timeoutMs),
  });
}

/** Rejects unless the answer is 2xx JSON. */
export async function jsonOf<T>(response: Response): Promise<T> {
  const text = await response.text();
  const type = response.headers.get('content-type');
  if (!response.ok || type?.startsWith('application/json') !== true)
    throw new Error(`${response.url} gave ${response.status}, ${type}: ${text.slice(0, 500)}`);
  const value: T = JSON.parse(text);
  return value;
}
