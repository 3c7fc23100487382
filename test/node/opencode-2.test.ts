import { spawn } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';

import { RECHECK_MS } from '../../src/node/access/gate.ts';
import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { type FakeOpencode2, startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import type { Answer, CallOptions } from './send-request.ts';
import { ID, type ClockedStage, openClockedStage, OWN_LAPTOP, READER, requestText, trustingPorts } from './stage.ts';

const HOME = '/home/ada';
const DIRECTORY = '/home/ada/project';

let folder: TempDir;
let fake: FakeOpencode2;
let stage: ClockedStage;

beforeEach(async () => {
  folder = tempDir('node-opencode-2');
  await mkdir(folder.path, { recursive: true });
  fake = await startFakeOpencode2({ home: HOME, directories: { [DIRECTORY]: {}, '/home/ada/other': {} } });
  await fake.register(folder.path);
  stage = await openClockedStage({ opencodeStateDir: folder.path });
  await until('the service to be listed', async () => (await stage.list()).services.length > 0);
});
afterEach(async () => {
  await stage[Symbol.asyncDispose]();
  await fake.close();
  await folder.close();
});

const request = (path: string, options?: CallOptions): Promise<Answer> =>
  stage.call(`${INSTANCE_PREFIX}service${path}`, options);
const requestAsReader = (path: string, options: CallOptions = {}): Promise<Answer> =>
  request(path, { from: READER, ...options });
const json = { 'content-type': 'application/json' };
const createSession = async (directory = DIRECTORY): Promise<string> =>
  (await fake.json<{ data: { id: string } }>('POST', '/api/session', { location: { directory } })).data.id;
/** Starts a session that runs until `model.release` opens the gate. */
const startRunning = async (gate: string): Promise<string> => {
  const session = await createSession();
  await fake.api(`/api/session/${session}/prompt`, { method: 'POST', body: { text: `gate ${gate}: done` } });
  await fake.model.waitForGate(gate);
  return session;
};
const requestsFor = (path: string): number => fake.requests.filter((request) => request.path === path).length;

it('a service is listed separately from instances with a directory, without its password', async () => {
  const listing = await stage.list();
  expect(listing.instances).toMatchObject([{ id: ID }]);
  expect(listing.services).toEqual([
    {
      id: 'service',
      host: 'the-host',
      version: fake.version,
      port: fake.port,
      dialect: 'opencode-2',
      path: '/opencode-mcp/v1/i/service',
    },
  ]);
  expect(JSON.stringify(listing)).not.toContain(fake.password);
});

it('a service is neither listed nor sent requests while another process of the user holds its port, and keeps its id afterwards', async () => {
  const path = join(folder.path, 'service.json');
  const file = await readFile(path, 'utf8');
  const before = (await stage.list()).services;
  await writeFile(path, JSON.stringify({ ...(JSON.parse(file) as object), pid: process.ppid }));
  await until('the service to be gone', async () => (await stage.list()).services.length === 0);
  const count = fake.requests.length;
  expect((await request('/api/info')).status).toBe(404);
  expect(fake.requests.length).toBe(count);
  await writeFile(path, file);
  await until('the service to be back', async () => (await stage.list()).services.length > 0);
  expect((await stage.list()).services).toEqual(before);
});

it('a service is sent no request if another process of the user has just taken its port', async () => {
  await using other = await openClockedStage({ opencodeStateDir: folder.path, ports: trustingPorts });
  await until('the service to be listed', async () => (await other.list()).services.length > 0);
  await fake.kill9();
  const script = `require('node:http').createServer((q, s) => { console.log(q.url); s.end('{}'); }).listen(${fake.port}, '127.0.0.1', () => console.log('up'))`;
  const thief = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void thief.kill('SIGKILL'));
  let output = '';
  thief.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  await until('the thief to listen', () => output.includes('up'));
  const answer = await other.call(`${INSTANCE_PREFIX}service/api/info`);
  // 404 if it has already left the list.
  expect([404, 502]).toContain(answer.status);
  expect(output.trim()).toBe('up');
  thief.kill('SIGKILL');
  await until('the thief to end', () => thief.signalCode !== null);
  await fake.restart();
});

describe('the role drive', () => {
  it('needs no password, and the password of a caller is not passed on', async () => {
    const token = Buffer.from('opencode:guess').toString('base64');
    const body = JSON.stringify({ location: { directory: DIRECTORY } });
    const made = await request(`/api/session?auth_token=${token}`, {
      method: 'POST',
      body,
      headers: { ...json, authorization: `Basic ${token}`, cookie: 'session=stolen' },
    });
    expect(made.status).toBe(200);
    expect(fake.requests.at(-1)).toMatchObject({ path: '/api/session', query: {}, authorized: true });
    expect((await request(`/api/session?limit=2&%61uth_token=${token}`)).status).toBe(200);
    expect(fake.requests.at(-1)).toMatchObject({ query: { limit: 2 } });
  });

  it('does not get secrets that stay valid after the role ends', async () => {
    const count = fake.requests.length;
    for (const from of [OWN_LAPTOP, READER])
      expect(await request('/API/p%61ir', { method: 'POST', from })).toMatchObject({ status: 403 });
    expect(fake.requests.length).toBe(count);
  });
});

describe('the role read', () => {
  it('can read info, sessions, messages and active sessions, and change nothing', async () => {
    const session = await startRunning('look');
    for (const path of [
      '/api/info',
      '/api/session?limit=5',
      '/api/session/active',
      `/api/session/${session}`,
      `/api/session/${session}/message?limit=3`,
      `/api/session/${session}/permission`,
      `/api/session/${session}/form`,
      `/api/experimental/session/${session}/log`,
    ])
      expect([path, (await requestAsReader(path)).status]).toEqual([path, 200]);
    const count = fake.requests.length;
    const change = await requestAsReader(`/api/session/${session}/interrupt`, {
      method: 'POST',
      body: '{}',
      headers: json,
    });
    expect([change.status, fake.requests.length]).toEqual([403, count]);
    fake.model.release('look');
  });

  it('loads no directory, neither by a route of an inactive session nor by a header', async () => {
    const session = fake.addSession({ directory: '/home/ada/other' }).info.id;
    const loaded = new Set(fake.loaded);
    const path = `/api/session/${session}/permission`;
    expect(await requestAsReader(path)).toMatchObject({ status: 403, text: expect.stringContaining('is not running') });
    expect(requestsFor(path)).toBe(0);
    await requestAsReader('/api/session', { headers: { 'x-opencode-directory': '/home/ada/other' } });
    expect(fake.requests.at(-1)).toMatchObject({ path: '/api/session', directory: undefined });
    expect(fake.loaded).toEqual(loaded);
  });

  it('gets a stream of the events of sessions until the role ends', async () => {
    const path = `${INSTANCE_PREFIX}service/api/event`;
    const { socket, received, receives } = await stage.open(requestText(path, ['Accept-Encoding: gzip']), READER);
    await receives(': heartbeat');
    const session = await startRunning('seen');
    await receives('"session.execution.started"');
    expect(received()).toContain(session);
    expect(received()).not.toContain('server.connected');
    fake.model.release('seen');
    await receives('"session.execution.succeeded"');
    stage.api.callers.delete(READER);
    await stage.clock.advance(RECHECK_MS);
    await until('the stream to be cut', () => socket.closed);
    await until('the stream to end at the service', () => fake.streams === 0);
  });
});
