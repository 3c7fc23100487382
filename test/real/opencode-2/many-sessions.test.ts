import { expect, onTestFinished, test } from 'vitest';

import { startMcpChild } from '../../rig/programs/mcp-child.ts';
import { data, openFakeService } from '../generations/grounds.ts';

const DAYS_MS = 24 * 3_600_000;

test('the directories of older sessions are read once, are listed or counted by age, and can be selected by name', async () => {
  const { fake, directories: paths, close } = await openFakeService(['app', 'today', 'far']);
  const { app, today, far } = paths;
  onTestFinished(close);
  const old = fake.addSession({ directory: far, title: 'Long ago' });
  old.info.time.updated = Date.now() - 3 * DAYS_MS;
  fake.addSession({ directory: today, title: 'This morning' }).info.time.updated = Date.now() - DAYS_MS / 2;
  for (let count = 0; count < 150; count += 1) fake.addSession({ directory: app });
  await using server = await startMcpChild({ args: ['--transport', 'service'], env: { HOME: fake.home } });
  const list = async (tool = 'instances') => {
    const { text, result } = await server.call(tool, {});
    const { instances } = data({ text, result, progress: [] }) as { instances: { directory?: string }[] };
    return { text, directories: instances.map(({ directory }) => directory).filter(Boolean) };
  };
  const callable = async (): Promise<boolean> =>
    (await server.call('list_sessions', { instance: 'far' })).text.includes('Long ago');

  await list();
  const before = fake.requests.length;
  const { text, directories } = await list();
  expect(fake.requests.slice(before).map(({ path }) => path)).toEqual(['/api/session', '/api/session/active']);
  expect(new Set(directories)).toEqual(new Set([app, today]));
  expect(text).toContain('1 more directory not listed: not used today');
  expect(await callable()).toBe(true);
  await list();
  expect(await callable()).toBe(true);

  await fake.api(`/api/session/${old.info.id}`, { method: 'DELETE' });
  expect((await list('refresh_instances')).text).not.toMatch(/more director/);
  expect([...fake.loaded]).toEqual([]);
});
