import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startFaultProxy } from '../rig/fault-proxy.ts';
import type { McpChild } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { type TempDir, tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

let stage: Stage;
let temp: TempDir;
let opencode: Opencode;
let server: McpChild;

beforeAll(async () => {
  stage = await openStage();
  temp = tempDir('boundary');
  opencode = await stage.opencode({ password: 'kept in a file' });
  server = await stage.server();
});
afterAll(async () => {
  await stage.close();
  await temp.close();
});

const rows = async (tool = 'instances'): Promise<Record<string, unknown>[]> =>
  ((await server.call(tool)).result.structuredContent?.['instances'] ?? []) as Record<string, unknown>[];
const named = async (name: string): Promise<Record<string, unknown> | undefined> =>
  (await rows()).find((row) => row['name'] === name);

/** A project whose plugin leaves a mark when opencode loads it. */
async function hostileProject(): Promise<{ readonly path: string; readonly mark: string }> {
  const path = `${temp.path}/hostile`;
  const mark = `${temp.path}/mark`;
  await mkdir(`${path}/.opencode/plugin`, { recursive: true });
  await writeFile(
    `${path}/.opencode/plugin/evil.js`,
    `import { writeFileSync } from 'node:fs';\nwriteFileSync(${JSON.stringify(mark)}, 'loaded');\nexport const Evil = async () => ({});\n`,
  );
  return { path, mark };
}

describe('a password that came with the registration', () => {
  test('opens the instance; without it, and with a wrong one, it is locked', async () => {
    await stage.register('with-password', opencode, { id: 'id-right', password: 'kept in a file' });
    await until('it is listed', async () => (await named('with-password'))?.['state'] === 'idle');
    const sent = await server.call('send', { instance: 'with-password', message: 'echo: unlocked' });
    expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: 'unlocked' });
    await stage.registry.remove('with-password', 'id-right');

    await stage.register('wrong', opencode, { id: 'id-wrong', password: 'not this one' });
    await until('it is listed', async () => (await named('wrong'))?.['state'] === 'locked');
    const refused = await server.call('send', { instance: 'wrong', message: 'echo: never' });
    expect(refused.result.isError).toBe(true);
    expect(stage.model.turns('echo: never')).toBe(0);
    await stage.registry.remove('wrong', 'id-wrong');
    const said = [...server.stdout, ...server.stderr].join('\n');
    expect(said).not.toContain('kept in a file');
    expect(said).not.toContain('not this one');
  });
});

describe("a registration's directory", () => {
  test('that is a hostile project is never loaded: it only labels, and does not match what answers', async () => {
    const { path, mark } = await hostileProject();
    await stage.registry.add(
      { name: 'trap', port: opencode.port, localPort: opencode.port, cwd: path, id: 'id-trap' },
      { password: 'kept in a file' },
    );
    await until('it is listed', async () => (await named('trap'))?.['state'] === 'offline');
    expect((await named('trap'))?.['reason']).toMatch(/another instance answers here/);
    for (const [tool, args] of [
      ['send', { instance: 'trap', message: 'echo: trapped' }],
      ['read', { instance: 'trap' }],
      ['list_sessions', { instance: 'trap' }],
      ['create_session', { instance: 'trap' }],
    ] as const) {
      expect((await server.call(tool, args)).result.isError, tool).toBe(true);
    }
    expect((await server.call('get_status', { instance: 'trap' })).result.structuredContent).toMatchObject({
      state: 'offline',
    });
    await server.call('refresh_instances');
    expect(existsSync(mark)).toBe(false);
    expect(stage.model.turns('echo: trapped')).toBe(0);
    await stage.registry.remove('trap', 'id-trap');

    // The trap is real: one GET that names the directory loads it.
    await opencode.request('GET', `/session?directory=${encodeURIComponent(path)}`);
    await until('the plugin was loaded', () => Promise.resolve(existsSync(mark)));
  });
});

describe('one process that several registrations lead to', () => {
  test('is one entry once an event proves it, and another process with the same id stays its own', async () => {
    const proxy = await startFaultProxy(opencode.url);
    try {
      await stage.registry.setPassword('id-twice', 'kept in a file');
      const entry = { cwd: opencode.directory, localPort: opencode.port, hostname: 'laptop', id: 'id-twice' };
      await stage.registry.add({ ...entry, name: 'twice', port: opencode.port }, { file: 'direct.json' });
      await stage.registry.add({ ...entry, name: 'twice', port: proxy.port }, { file: 'tunnel.json' });
      await until('both ways are one entry', async () => {
        const found = (await rows()).filter(({ name }) => String(name).startsWith('twice'));
        return (
          found.length === 1 &&
          found[0]?.['state'] === 'idle' &&
          proxy.count({ path: '/global/event' }) + proxy.count({ method: 'POST', path: /\/abort$/ }) > 0
        );
      });

      // A liar: another process, which copies the id, the port and the host.
      const liar = await stage.opencode({ password: 'kept in a file' });
      await stage.registry.add(
        { ...entry, cwd: liar.directory, name: 'twice', port: liar.port },
        { file: 'liar.json' },
      );
      await until('the liar is an entry of its own', async () => {
        const found = (await rows()).filter(({ name }) => String(name).startsWith('twice'));
        return found.length === 2 && found.every(({ state }) => state === 'idle');
      });
      const directories = (await rows('list_instances')).map(({ directory }) => directory);
      expect(directories).toContain(liar.directory);
      expect(directories).toContain(opencode.directory);
    } finally {
      await proxy.close();
    }
  });
});
