import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Endpoint } from '../../src/model/candidate.ts';
import { exchange, openStream } from '../../src/http/exchange.ts';
import { within } from '../rig/wait.ts';

const limits = { timeoutMs: 10_000, maxBytes: 1024 };
const credential = { username: 'opencode', password: 'secret' };

/** A server in this process; `seen` has the Authorization header of each request. */
async function listen(): Promise<{ readonly port: number; readonly seen: readonly (string | undefined)[] }> {
  const seen: (string | undefined)[] = [];
  const server = createServer(({ headers }, response) => {
    seen.push(headers.authorization);
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => server.close().closeAllConnections());
  return { port: (server.address() as AddressInfo).port, seen };
}

function endpointOf(port: number, holderPid: number, fields: Partial<Endpoint> = {}): Endpoint {
  return { url: `http://127.0.0.1:${port}`, route: 'loopback', holderPid, ...fields };
}

/** Another living process of this user. */
function otherProcess(): number {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' });
  onTestFinished(() => void child.kill());
  return child.pid ?? 0;
}

async function endedProcess(): Promise<number> {
  const child = spawn('true', { stdio: 'ignore' });
  await once(child, 'exit');
  return child.pid ?? 0;
}

const withheld = (pid: number): object => ({
  kind: 'unreachable',
  withheld: expect.stringMatching(
    new RegExp(`^nothing was sent: process ${pid}, which the service's file names, does not hold port \\d+ of 127`),
  ),
});

test('the named process gets requests, with and without a password, if it holds the port', async () => {
  const { port, seen } = await listen();
  await exchange({ endpoint: endpointOf(port, process.pid), credential }, '/x', {}, limits);
  await exchange({ endpoint: endpointOf(port, process.pid) }, '/x', {}, limits);
  expect(seen).toEqual(['Basic b3BlbmNvZGU6c2VjcmV0', undefined]);
});

describe('nothing is sent', () => {
  test.each([
    ['another process of this user', otherProcess],
    ['a process that has ended', endedProcess],
    ['a process of root that holds nothing', () => 1],
    ['a process id that cannot exist', () => 0x7fff_ffff],
  ])('if the file names %s', async (_, named) => {
    const { port, seen } = await listen();
    const pid = await named();
    const endpoint = endpointOf(port, pid);
    await expect(exchange({ endpoint, credential }, '/x', {}, limits)).rejects.toMatchObject(withheld(pid));
    await expect(exchange({ endpoint }, '/x', {}, limits)).rejects.toMatchObject(withheld(pid));
    const stream = { headersTimeoutMs: 10_000, signal: new AbortController().signal };
    await expect(openStream({ endpoint, credential }, '/x', stream)).rejects.toMatchObject(withheld(pid));
    expect(seen).toEqual([]);
  });

  test('on a pooled connection made for another registration of the port', async () => {
    const { port, seen } = await listen();
    const pid = otherProcess();
    const url = `http://127.0.0.1:${port}`;
    await exchange({ endpoint: { url, route: 'loopback' }, credential }, '/x', {}, limits);
    const exchanging = exchange({ endpoint: endpointOf(port, pid), credential }, '/x', {}, limits);
    await expect(exchanging).rejects.toMatchObject(withheld(pid));
    expect(seen).toHaveLength(1);
  });

  test('to a worker that keeps listening after the named process has stopped', async () => {
    const script = `process.on('message', (_, server) => {
      let requests = 0;
      require('node:http').createServer((request, response) => {
        requests += 1;
        response.writeHead(200, { 'content-type': 'application/json' }).end(String(requests));
      }).listen(server);
      process.send('listens');
    })`;
    const server = createTcpServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const worker = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    onTestFinished(() => void worker.kill());
    worker.send('server', server);
    await within(once(worker, 'message'), 'the worker to listen');
    server.close();
    await once(server, 'close');
    const exchanging = exchange({ endpoint: endpointOf(port, process.pid), credential }, '/x', {}, limits);
    await expect(exchanging).rejects.toMatchObject(withheld(process.pid));
    const { text } = await exchange({ endpoint: endpointOf(port, worker.pid ?? 0), credential }, '/x', {}, limits);
    expect(text).toBe('1');
  });

  test('to another machine', async () => {
    const { port, seen } = await listen();
    const dial: Endpoint['dial'] = () => Promise.resolve(connect(port, '127.0.0.1'));
    const endpoint = endpointOf(port, process.pid, { url: `http://192.0.2.1:${port}`, dial });
    const exchanging = exchange({ endpoint, credential }, '/x', {}, limits);
    await expect(exchanging).rejects.toMatchObject(withheld(process.pid));
    expect(seen).toEqual([]);
  });
});
