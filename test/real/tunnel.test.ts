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
import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { expectedReply } from '../rig/model-script.ts';
import { isSkipped } from '../rig/needed.ts';
import type { Opencode } from '../rig/opencode.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { openStage, type Stage } from './stage.ts';

const run = promisify(execFile);
const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

/** A client for which a send waits as long as a cold opencode on a busy machine may need. */
const CLAUDE_CODE = { name: 'claude-code', version: '2.1.329' };

const ID = 'b0a1c2d3e4f5.access';
const SECRET = '5ecret-0f-the-service-t0ken';
const PASSWORD = 'pa55word-of-the-opencode';
const WRONG = 'wr0ng-5ecret';

const openssl = process.env['PATH']
  ?.split(delimiter)
  .map((folder) => join(folder, 'openssl'))
  .find((path) => existsSync(path));

// Nothing else at hand signs a certificate.
describe.skipIf(isSkipped(openssl === undefined ? 'needs openssl' : undefined))(
  'a real opencode behind a Cloudflare Tunnel with an Access policy',
  () => {
    let temp: TempDir;
    let stage: Stage;
    let opencode: Opencode;
    let tunnel: Tunnel;
    const servers: McpChild[] = [];

    beforeAll(async () => {
      temp = tempDir('opencode-mcp-tunnel');
      stage = await openStage();
      opencode = await stage.opencode({ password: PASSWORD });
      tunnel = await openTunnel(temp.path, opencode.url);
      await writeFile(join(temp.path, 'id'), `${ID}\n`, { mode: 0o600 });
      await writeFile(join(temp.path, 'secret'), `${SECRET}\n`, { mode: 0o600 });
      await writeFile(join(temp.path, 'password'), `${PASSWORD}\n`, { mode: 0o600 });
    });
    afterAll(async () => {
      await stage.close();
      await tunnel.close();
      await temp.close();
    });

    /** A server whose configuration lists the one instance by the tunnel's URL. */
    async function serve(
      headers: Readonly<Record<string, unknown>>,
      env: Readonly<Record<string, string>> = {},
    ): Promise<McpChild> {
      const config = join(temp.path, `config-${servers.length}.json`);
      const office = { name: 'office', url: tunnel.url, password: { file: 'password' }, headers };
      await writeFile(config, JSON.stringify({ instances: [office] }), { mode: 0o600 });
      const server = await stage.server({
        clientInfo: CLAUDE_CODE,
        args: ['--config', config],
        env: { NODE_EXTRA_CA_CERTS: tunnel.authority, ...env },
      });
      servers.push(server);
      // Its rounds would count in the next test.
      onTestFinished(() => server.close());
      return server;
    }

    const fromFiles = { 'CF-Access-Client-Id': { file: 'id' }, 'CF-Access-Client-Secret': { file: 'secret' } };

    test.each([
      [
        'the environment',
        {
          'CF-Access-Client-Id': { env: 'CF_ACCESS_CLIENT_ID' },
          'CF-Access-Client-Secret': { env: 'CF_ACCESS_CLIENT_SECRET' },
        },
        { CF_ACCESS_CLIENT_ID: ID, CF_ACCESS_CLIENT_SECRET: SECRET },
      ],
      ['files', fromFiles, {}],
    ])(
      'with the service token from %s: it is listed, a send streams its answer, and read shows it',
      async (_, headers, env) => {
        const server = await serve(headers, env);
        const listed = await server.call('instances');
        expect(data(listed)).toMatchObject({
          instances: [
            {
              name: 'office',
              host: '127.0.0.1',
              state: 'idle',
              directory: opencode.directory,
              version: opencode.version,
              sources: ['static'],
            },
          ],
        });
        expect(listed.text).toContain(tunnel.url);
        const message = 'slow 8 60: through the tunnel';
        const sent = await server.call('send', { instance: 'office', message });
        expect(data(sent)).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
        expect(sent.progress.map(({ message: text }) => text ?? '').join('')).toBe(expectedReply(message));
        // As it was said, not in one piece at the end.
        expect(sent.progress.length).toBeGreaterThan(1);
        expect(data(await server.call('read', { instance: 'office', message_limit: 2 }))).toMatchObject({
          messages: [{ text: message }, { text: expectedReply(message) }],
        });
      },
    );

    test.each([
      ['without the service token', {}],
      ['with a wrong secret', { 'CF-Access-Client-Id': ID, 'CF-Access-Client-Secret': WRONG }],
      ['with half of the token', { 'CF-Access-Client-Id': ID }],
    ])('%s: offline, with the redirect as the reason, which is not followed', async (_, headers) => {
      const server = await serve(headers);
      const admitted = tunnel.admitted;
      expect(data(await server.call('instances'))).toMatchObject({
        instances: [{ name: 'office', state: 'offline', reason: expect.stringMatching(/redirect/) as string }],
      });
      for (const [tool, args] of [
        ['send', { message: 'echo: never' }],
        ['read', {}],
      ] as const) {
        const { result, text } = await server.call(tool, { instance: 'office', ...args });
        expect(result.isError).toBe(true);
        expect(text).toMatch(/office.*redirect/);
      }
      expect(stage.model.turns('echo: never')).toBe(0);
      expect([tunnel.admitted, tunnel.logins]).toEqual([admitted, 0]);
    });

    test('a token that is revoked: offline with when it was last seen; admitted again, it goes on', async () => {
      const server = await serve(fromFiles);
      expect(data(await server.call('instances'))).toMatchObject({ instances: [{ state: 'idle' }] });
      tunnel.revoked = true;
      try {
        expect(data(await server.call('instances'))).toMatchObject({
          instances: [
            {
              state: 'offline',
              reason: expect.stringMatching(/redirect/) as string,
              last_seen: expect.any(String) as string,
            },
          ],
        });
      } finally {
        tunnel.revoked = false;
      }
      expect(data(await server.call('instances'))).toMatchObject({ instances: [{ state: 'idle' }] });
      expect(tunnel.logins).toBe(0);
    });

    test('a certificate that nobody here vouches for: offline, and the reason says that it is the certificate', async () => {
      const server = await serve(fromFiles, { NODE_EXTRA_CA_CERTS: '' });
      const { admitted } = tunnel;
      const listed = await server.call('instances');
      expect(data(listed)).toMatchObject({ instances: [{ name: 'office', state: 'offline' }] });
      expect(listed.text).toMatch(/certificate/i);
      // Neither the token nor the password went to whoever it is.
      expect(tunnel.admitted).toBe(admitted);
    });

    test('no secret is in anything that any of these servers said, with all of the log', async () => {
      expect(servers.flatMap(({ stderr }) => stderr)).not.toEqual([]);
      const basic = Buffer.from(`opencode:${PASSWORD}`).toString('base64');
      for (const { stdout, stderr } of servers) {
        const said = [...stdout, ...stderr].join('\n');
        for (const secret of [ID, SECRET, WRONG, PASSWORD, basic]) expect(said).not.toContain(secret);
      }
    });
  },
);

/** What stands between the machine and the tunnel's hostname: TLS, and a policy that admits one service token. */
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

async function certify(args: readonly string[]): Promise<void> {
  await run(openssl ?? 'openssl', args);
}

/** An authority of our own and a certificate for 127.0.0.1 that it signed; resolves with the path of the authority's. */
async function makeCertificates(folder: string): Promise<string> {
  const ca = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const path = (file: string): string => join(folder, file);
  await certify([
    'req',
    '-x509',
    ...ca,
    '-keyout',
    path('ca.key'),
    '-out',
    path('ca.pem'),
    '-days',
    '2',
    '-subj',
    '/CN=Test authority',
  ]);
  await certify(['req', ...ca, '-keyout', path('server.key'), '-out', path('server.csr'), '-subj', '/CN=tunnel']);
  await writeFile(path('server.ext'), 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n');
  const signed = ['-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-CAcreateserial', '-days', '2'];
  await certify([
    'x509',
    '-req',
    '-in',
    path('server.csr'),
    '-out',
    path('server.pem'),
    '-extfile',
    path('server.ext'),
    ...signed,
  ]);
  return path('ca.pem');
}
