import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { runSessions } from '../../src/connected/sessions/command.ts';
import { runStatus } from '../../src/connected/status/command.ts';
import { openRemains, type Remains } from '../connected/cleanup/remains.ts';
import { needRoot } from '../discovery/as-root.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { startMcpChild } from '../rig/programs/mcp-child.ts';
import { startStranger, type Stranger } from '../rig/stranger.ts';

const neverAborted = new AbortController().signal;
const DEFAULT_PASSWORD = 'of every other instance';

let remains: Remains;

beforeEach(async (context) => {
  needRoot(context);
  remains = await openRemains();
});
afterEach(() => remains?.[Symbol.asyncDispose]());

function environment(): Record<string, string> {
  return {
    RELAY_REGISTRY_DIR: remains.registry,
    TRANSPORT: 'local-relay',
    OPENCODE_SERVER_PASSWORD: DEFAULT_PASSWORD,
  };
}

describe('two registrations whose ports another user now holds, one with its own password, one without', () => {
  let strangers: readonly [Stranger, Stranger];
  beforeEach(async () => {
    strangers = [await startStranger(), await startStranger()];
    await remains.register('own', { port: strangers[0].port, password: true });
    await remains.register('default', { port: strangers[1].port, password: false });
  });
  afterEach(async () => {
    await Promise.all((strangers ?? []).map((stranger) => stranger[Symbol.asyncDispose]()));
  });
  const withheldNote = ({ port }: Stranger) => `no password was sent: user id 65534 holds port ${port} of 127.0.0.1`;

  test('list_instances reports that no password was sent, and send sends no message', async () => {
    await using server = await startMcpChild({ env: environment() });
    const { text: list } = await server.call('list_instances');
    for (const stranger of strangers) expect(list).toContain(withheldNote(stranger));
    for (const instance of ['own', 'default']) {
      expect(list).toMatch(new RegExp(`${instance}.*locked`));
      const { text, result } = await server.call('send', { instance, message: 'do it' });
      expect(result.isError).toBe(true);
      expect(text).toContain('No message was sent.');
      expect(text).not.toContain('set one and start this server');
    }
    expect(strangers.flatMap(({ seen }) => seen)).toEqual([]);
  });

  test.each([
    ['status', runStatus],
    ['sessions', runSessions],
  ])('opencode-connected %s reports that no password was sent', async (_, run) => {
    const defaultCredential = { password: { kind: 'value', value: DEFAULT_PASSWORD } } as const;
    let out = '';
    await run({
      settings: remains.places({ defaultCredential }),
      json: true,
      out: (text) => (out += text),
      signal: neverAborted,
    });
    for (const stranger of strangers) expect(out).toContain(withheldNote(stranger));
    expect(strangers.flatMap(({ seen }) => seen)).toEqual([]);
  });
});

/** Runs a program without /proc/net and lsof, so that it cannot determine who holds a socket. */
const WITHOUT_SOCKET_HOLDERS = [
  'unshare',
  '--mount',
  '/bin/sh',
  '-c',
  'mount --bind "$1" /proc/$$/net && shift && export PATH=/nonexistent && exec "$@"',
  'sh',
] as const;

test('if the holder is unknown, only instances configured by URL get a password', async () => {
  await using stranger = await startStranger({ how: 'locked' });
  await using own = await startFakeOpencode({ password: DEFAULT_PASSWORD });
  await remains.register('registered', { port: stranger.port, password: true });
  const config = join(remains.path, 'config.json');
  await writeFile(config, JSON.stringify({ instances: [{ name: 'configured', url: own.url }] }));
  await using server = await startMcpChild({
    prefix: [...WITHOUT_SOCKET_HOLDERS, remains.stateDir],
    args: ['--config', config],
    env: environment(),
  });
  const { text } = await server.call('list_instances');
  expect(text).toContain('no password was sent: cannot see which user holds port');
  expect(text).toContain('list that URL under "instances" in the config file');
  expect(text).toMatch(/configured.*\bidle\b/);
  expect(stranger.seen.length).toBeGreaterThan(0);
  expect(stranger.seen.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
});
