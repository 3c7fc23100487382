import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { within } from './wait.ts';

/** Debian's `nobody`; the tests run as another user. */
export const STRANGER_UID = 65_534;

/** Answers like an opencode in the given directory, or with 401 if `locked`. */
const PROGRAM = `
const [port, directory, how] = process.argv.slice(1);
const ANSWERS = { '/global/health': { healthy: true, version: '1.18.33' }, '/path': { directory, worktree: directory } };
require('node:http').createServer((request, response) => {
  const { method, url, headers } = request;
  console.log(JSON.stringify({ method, url, authorization: headers.authorization }));
  response.writeHead(how === 'locked' ? 401 : 200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(ANSWERS[url.split('?', 1)[0]] ?? []));
}).listen(Number(port), '127.0.0.1', function () { console.log(this.address().port); });
process.stdin.on('end', () => process.exit()).resume();
`;

export interface StrangersRequest {
  readonly method: string;
  readonly url: string;
  readonly authorization?: string;
}

/** Another user's process that listens on a port of 127.0.0.1. */
export interface Stranger extends AsyncDisposable {
  readonly port: number;
  /** Requests that it has received. */
  readonly seen: readonly StrangersRequest[];
}

export interface StrangerOptions {
  readonly port?: number;
  readonly directory?: string;
  readonly how?: 'open' | 'locked';
}

/** Starts the process, which needs root. */
export async function startStranger({
  port = 0,
  directory = '/home/user/project',
  how = 'open',
}: StrangerOptions = {}): Promise<Stranger> {
  const child = spawn(process.execPath, ['-e', PROGRAM, String(port), directory, how], {
    uid: STRANGER_UID,
    gid: STRANGER_UID,
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const seen: StrangersRequest[] = [];
  const lines = createInterface(child.stdout);
  const [first] = (await within(once(lines, 'line'), 'the stranger to listen')) as [string];
  lines.on('line', (line) => {
    const request: StrangersRequest = JSON.parse(line);
    seen.push(request);
  });
  return {
    port: Number(first),
    seen,
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await within(exited, 'the stranger to end');
    },
  };
}
