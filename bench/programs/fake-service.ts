import { listenHttp } from '../../test/rig/http-listener.ts';

/** The part of an OpenCode 2 that a listing requests: one idle session in one directory. */
export interface FakeService {
  readonly port: number;
  /** Requests so far. */
  readonly requests: number;
}

/** The password of every OpenCode 2 of a fleet. */
export const FLEET_PASSWORD = 'of the fleet';
const ALLOWED = `Basic ${btoa(`opencode:${FLEET_PASSWORD}`)}`;

export async function startFakeService(index: number): Promise<FakeService> {
  const nowMs = Date.now();
  const session = {
    id: `ses_${String(index).padStart(26, '0')}`,
    projectID: 'global',
    title: `Session of ${index}`,
    location: { directory: `/home/user/project-${index}` },
    time: { created: nowMs, updated: nowMs },
  };
  const answers: Readonly<Record<string, object>> = {
    '/api/info': { version: '2.1.2', pid: process.pid, urls: [], paths: { tmp: '/tmp' } },
    '/api/session': { data: [session], cursor: {} },
    '/api/session/active': { data: {} },
  };
  let requests = 0;
  const { port } = await listenHttp((request, response) => {
    requests += 1;
    const answer = answers[request.url?.split('?', 1)[0] ?? ''];
    if (answer === undefined) response.writeHead(200, { 'content-type': 'text/html' }).end('<html></html>');
    else if (request.headers.authorization !== ALLOWED)
      response.writeHead(401, { 'content-type': 'application/json' }).end('{"_tag":"UnauthorizedError"}');
    else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
  });
  return {
    port,
    get requests() {
      return requests;
    },
  };
}
