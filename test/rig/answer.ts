import type { ServerResponse } from 'node:http';

export interface Answer {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** opencode's answer to an unknown path. */
export const WEB_PAGE: Answer = {
  status: 200,
  headers: { 'content-type': 'text/html' },
  body: '<!doctype html>\n<html lang="en">\n  <head>\n    <title>OpenCode</title>\n  </head>\n</html>\n',
};

export function give(response: ServerResponse, { status, body, headers = {} }: Answer): void {
  if (body === undefined || typeof body === 'string') {
    response.writeHead(status, headers);
    response.end(body ?? '');
    return;
  }
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}
