import { expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { findPlace } from '../../src/page/session/find-session.ts';
import { streamSession } from '../../src/page/session/session-stream.ts';
import { testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { streamSlowly } from './slow-response.ts';
import { openPageStage } from './stage.ts';

test('a slow reader gets the newest title and few of the earlier ones', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession({ title: 'The first' });
  const view = { runtime: testRuntime(stage.instances.fleet), all: false };
  await using reader = streamSlowly(systemClock, async (stream, signal) => {
    const span = { signal, deadlineMs: Number.POSITIVE_INFINITY };
    const target = { instance: 'one', session: session.id };
    const place = await findPlace(view, target, { name: 'ada', role: 'drive' }, span);
    await streamSession(place, { stream, clock: systemClock, signal, canDrive: true });
  });
  await until('the first lines', () => reader.written.length === 1);
  reader.drain();
  for (let number = 1; number <= 200; number += 1)
    stage.fake.emit('session.updated', { sessionID: session.id, info: { ...session, title: `Title ${number}.` } });
  await until('the last title', () => {
    reader.drain();
    return reader.written.at(-1)?.includes('Title 200.') === true;
  });
  expect(reader.written.length).toBeLessThan(100);
});
