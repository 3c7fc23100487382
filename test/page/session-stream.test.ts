import type { ServerResponse } from 'node:http';

import { expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { LineStream } from '../../src/page/line-stream.ts';
import { findPlace } from '../../src/page/session/find-session.ts';
import { streamSession } from '../../src/page/session/session-stream.ts';
import { testRuntime } from '../rig/runtime.ts';
import { until } from '../rig/wait.ts';
import { SlowResponse } from './slow-response.ts';
import { openPageStage } from './stage.ts';

test('a blocked reader gets only the newest title in the end', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession({ title: 'The first' });
  const view = { runtime: testRuntime(stage.instances.fleet), all: false };
  const ending = new AbortController();
  const { signal } = ending;
  const place = await findPlace(
    view,
    { instance: 'one', session: session.id },
    { name: 'ada', role: 'drive' },
    { signal, deadlineMs: Number.POSITIVE_INFINITY },
  );
  const response = new SlowResponse();
  const stream = new LineStream(response as unknown as ServerResponse, systemClock, signal);
  const streaming = streamSession(place, { stream, clock: systemClock, signal, canDrive: true });
  await until('what there is', () => response.written.length === 1);
  response.drain();
  for (let number = 1; number <= 200; number += 1)
    stage.fake.emit('session.updated', { sessionID: session.id, info: { ...session, title: `Title ${number}.` } });
  await until('the last title', () => {
    response.drain();
    return response.written.at(-1)?.includes('Title 200.') === true;
  });
  expect(response.written.length).toBeLessThan(100);
  ending.abort();
  await streaming;
});
