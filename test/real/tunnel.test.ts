import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { request as forward, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { delimiter, join } from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { listenHttp, type HttpListener } from '../rig/http-listener.ts';
import type { McpChild } from '../rig/programs/mcp-child.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import { isSkipped } from '../rig/needed.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { tempDir } from '../rig/temp.ts';
import { CLAUDE_CODE, type Data, dataOf, openStage, progressText, refusalOf, type Stage } from './stage.ts';

const run = promisify(execFile);

const ID = 'b0a1c2d3e4f5.access';
const SECRET = '5ecret-0f-the-service-t0ken';
const PASSWORD = 'pa55word-of-the-opencode';
const WRONG = 'wr0ng-5ecret';

const openssl = process.env['PATH']
  ?.split(delimiter)
  .map((folder) => join(folder, 'openssl'))
  .find((path) => existsSync(path));

// It makes certificates, which Node cannot.
const cannotCertify = isSkipped(openssl === undefined ? 'needs openssl' : undefined);
describe.skipIf(cannotCertify)('a real opencode behind a Cloudflare Tunnel with an Access policy', () => {
  const temp = tempDir('opencode-mcp-tunnel');
  let stage: Stage;
  let opencode: Opencode;
  let tunnel: Tunnel;
  const servers: McpChild[] = [];

  beforeAll(async () => {
    stage = await openStage();
    opencode = await stage.opencode({ password: PASSWORD });
    tunnel = await openTunnel(temp.path, opencode.url);
    for (const [name, content] of Object.entries({ id: ID, secret: SECRET, password: PASSWORD }))
      await writeFile(join(temp.path, name), `${content}\n`, { mode: 0o600 });
  });
  afterAll(async () => {
    await stage.close();
    await tunnel.close();
    await temp.close();
  });

  /** A server whose configuration lists the one instance by the tunnel's URL. */
  async function serve(headers: Data, env: Readonly<Record<string, string>> = {}): Promise<McpChild> {
    const config = join(temp.path, `config-${servers.length}.json`);
    const office = { name: 'office', url: tunnel.url, password: { file: 'password' }, headers };
    await writeFile(config, JSON.stringify({ instances: [office] }), { mode: 0o600 });
    const server = await stage.server({
      ...CLAUDE_CODE,
      args: ['--config', config],
      env: { NODE_EXTRA_CA_CERTS: tunnel.authority, ...env },
    });
    servers.push(server);
    // Its rounds would count in the next test.
    onTestFinished(() => server.close());
    return server;
  }

  const listed = async (server: McpChild): Promise<unknown> => dataOf(await server.call('instances'))['instances'];
  const offline = { name: 'office', state: 'offline', reason: expect.stringMatching(/redirect/) as string };
  const fromFiles = { 'CF-Access-Client-Id': { file: 'id' }, 'CF-Access-Client-Secret': { file: 'secret' } };

  test.each([
    [
      'the environment',
      { 'CF-Access-Client-Id': { env: 'CLIENT_ID' }, 'CF-Access-Client-Secret': { env: 'CLIENT_SECRET' } },
      { CLIENT_ID: ID, CLIENT_SECRET: SECRET },
    ],
    ['files', fromFiles, {}],
  ])('is listed with the service token from %s, and a send streams its answer', async (_, headers, env) => {
    const server = await serve(headers, env);
    const { directory, version } = opencode;
    expect(await listed(server)).toMatchObject([
      {
        name: 'office',
        host: '127.0.0.1',
        state: 'idle',
        directory,
        version,
        via: expect.stringContaining(tunnel.url),
      },
    ]);
    const message = 'slow 8 60: through the tunnel';
    const sent = await server.call('send', { instance: 'office', message });
    expect(dataOf(sent)).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
    expect(progressText(sent)).toBe(expectedReply(message));
    // Not in one piece at the end.
    expect(sent.progress.length).toBeGreaterThan(1);
  });

  test.each([
    ['without the service token', {}],
    ['with a wrong secret', { 'CF-Access-Client-Id': ID, 'CF-Access-Client-Secret': WRONG }],
  ])('is offline %s, because of a redirect, which is not followed', async (_, headers) => {
    const server = await serve(headers);
    const { admitted } = tunnel;
    expect(await listed(server)).toMatchObject([offline]);
    const sent = await server.call('send', { instance: 'office', message: 'echo: never' });
    expect(refusalOf(sent)).toMatch(/office.*redirect/);
    expect(stage.model.turns('echo: never')).toBe(0);
    expect([tunnel.admitted, tunnel.logins]).toEqual([admitted, 0]);
  });

  test('is offline, with the time it was last seen, while the token is revoked, and idle once it is admitted again', async () => {
    const server = await serve(fromFiles);
    expect(await listed(server)).toMatchObject([{ state: 'idle' }]);
    tunnel.revoked = true;
    onTestFinished(() => void (tunnel.revoked = false));
    expect(await listed(server)).toMatchObject([{ ...offline, last_seen: expect.any(String) as string }]);
    tunnel.revoked = false;
    expect(await listed(server)).toMatchObject([{ state: 'idle' }]);
    expect(tunnel.logins).toBe(0);
  });

  test('is offline if its certificate has an unknown authority, and gets neither token nor password', async () => {
    const server = await serve(fromFiles, { NODE_EXTRA_CA_CERTS: '' });
    const { admitted } = tunnel;
    expect(await listed(server)).toMatchObject([
      { name: 'office', state: 'offline', reason: expect.stringMatching(/certificate/i) as string },
    ]);
    expect(tunnel.admitted).toBe(admitted);
  });

  test('no server writes a secret to its output or its log', () => {
    expect(servers.flatMap(({ stderr }) => stderr)).not.toEqual([]);
    const basic = Buffer.from(`opencode:${PASSWORD}`).toString('base64');
    const output = servers.flatMap(({ stdout, stderr }) => [...stdout, ...stderr]).join('\n');
    for (const secret of [ID, SECRET, WRONG, PASSWORD, basic]) expect(output).not.toContain(secret);
  });
});

/** The public end of the tunnel: TLS, and a policy that admits one service token. */
interface Tunnel {
  readonly url: string;
  /** The certificate of the authority that signed the tunnel's: for NODE_EXTRA_CA_CERTS. */
  readonly authority: string;
  /** Requests that were passed on to opencode. */
  readonly admitted: number;
  /** Requests that followed the redirect. */
  readonly logins: number;
  revoked: boolean;
  close(): Promise<void>;
}

async function openTunnel(folder: string, target: string): Promise<Tunnel> {
  const authority = await makeCertificates(folder);
  let admitted = 0;
  let logins = 0;
  const loginPage: HttpListener = await listenHttp((_, response) => {
    logins += 1;
    response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>Sign in</title>');
  });
  const [key, cert] = await Promise.all(['server.key', 'server.pem'].map((file) => readFile(join(folder, file))));
  const server: Server = createServer({ key, cert, requestTimeout: 0 }, (incoming, response) => {
    const { 'cf-access-client-id': id, 'cf-access-client-secret': secret } = incoming.headers;
    if (tunnel.revoked || id !== ID || secret !== SECRET) {
      // As Access answers every path: with its login page's address, the way back in it.
      const location = `${loginPage.url}/cdn-cgi/access/login/127.0.0.1?redirect_url=${encodeURIComponent(incoming.url ?? '/')}`;
      response.writeHead(302, { location, 'set-cookie': 'CF_AppSession=n; Secure; HttpOnly' }).end();
      return;
    }
    admitted += 1;
    passOn(incoming, response, target);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  const tunnel: Tunnel = {
    url: `https://127.0.0.1:${port}`,
    authority,
    get admitted() {
      return admitted;
    },
    get logins() {
      return logins;
    },
    revoked: false,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
      await loginPage.close();
    },
  };
  return tunnel;
}

function passOn(incoming: IncomingMessage, response: ServerResponse, target: string): void {
  // The token stays at the edge.
  const { 'cf-access-client-id': _id, 'cf-access-client-secret': _secret, ...headers } = incoming.headers;
  const onward = forward(new URL(incoming.url ?? '/', target), { method: incoming.method, headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  onward.on('error', () => response.destroy());
  response.once('close', () => onward.destroy());
  incoming.pipe(onward);
}

/** An authority of our own and a certificate for 127.0.0.1 that it signed; resolves with the path of the authority's. */
async function makeCertificates(folder: string): Promise<string> {
  const certify = (args: string): Promise<unknown> => run(openssl ?? 'openssl', args.split(' '), { cwd: folder });
  await writeFile(join(folder, 'server.ext'), 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n');
  const made = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';
  await certify(`req -x509 ${made} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority`);
  await certify(`req ${made} -keyout server.key -out server.csr -subj /CN=tunnel`);
  const signed = '-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext';
  await certify(`x509 -req -in server.csr -out server.pem ${signed}`);
  return join(folder, 'ca.pem');
}
