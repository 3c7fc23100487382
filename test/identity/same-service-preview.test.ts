import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { LiveFleet } from '../../src/fleet/fleet.ts';
import type { Connection } from '../../src/http/exchange.ts';
import { isSameByEvents } from '../../src/identity/same-service.ts';
import { candidate } from '../fleet/candidates.ts';
import { TestSource } from '../fleet/world.ts';
import { announce } from '../rig/announce.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { isMissing, PREVIEW_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { type Preview, startPreview } from '../rig/opencode/opencode-preview.ts';
import { type ScriptedModel, startScriptedModel } from '../rig/model/scripted-model.ts';
import { until } from '../rig/wait.ts';

/** More time than any event takes. */
const DEADLINE_MS = 60_000;

describe.skipIf(isMissing(PREVIEW_OPENCODE))('two connections to the preview', () => {
  let model: ScriptedModel;
  let preview: Preview;
  let tunnel: FaultProxy;
  /** Another process of the same user, with the same store. */
  let second: Preview;

  beforeAll(async () => {
    model = await startScriptedModel();
    preview = await startPreview({ model });
    announce(preview);
    second = await startPreview({ home: preview.home });
    tunnel = await startFaultProxy(preview.url);
  });
  afterAll(async () => {
    await tunnel?.close();
    await second?.close();
    await preview?.close();
    await model?.close();
  });

  const via = (url: string): Connection => ({
    endpoint: { url, route: 'loopback' },
    credential: { username: 'opencode', password: preview.password },
  });
  const createSession = async (): Promise<string> => {
    const location = { directory: preview.directory };
    return (await preview.json<{ data: { id: string } }>('POST', '/api/session', { location })).data.id;
  };
  const prompt = (id: string, text: string, at = preview): Promise<unknown> =>
    at.json('POST', `/api/session/${id}/prompt`, { prompt: { text }, delivery: 'queue' });

  test('are joined if both emit the same event, but not with another process on the same store', async () => {
    const abort = new AbortController();
    const deps = { clock: systemClock, deadlineMs: DEADLINE_MS };
    const same = isSameByEvents(via(preview.url), via(tunnel.url), deps, abort.signal);
    const another = isSameByEvents(via(preview.url), via(second.url), deps, abort.signal);
    let isSettled = false;
    void another.then(() => (isSettled = true));
    await tunnel.waitForRequest({ path: '/api/event' });
    const id = await createSession();
    await prompt(id, 'echo: here');
    await prompt(await createSession(), 'echo: there', second);
    await model.waitForTurn('echo: there');
    expect(await same).toBe(true);
    // By then both turns have sent all of their events.
    await until('both turns to end', async () => {
      const active = await Promise.all([preview, second].map((service) => service.json('GET', '/api/session/active')));
      return active.every((answer) => Object.keys((answer as { data: object }).data).length === 0);
    });
    expect(isSettled).toBe(false);
    abort.abort();
    expect(await another).toBe(false);
  });

  test('are listed as two services without event streams until a session runs, and then as one', async () => {
    const source = new TestSource();
    const claims = { hostname: 'desk', service: { isPreview: true } } as const;
    for (const [key, { url }] of Object.entries({ direct: preview, tunnel, second }))
      source.candidates.set(key, candidate({ key, url, claims }));
    const fleet = new LiveFleet({
      settings: { discoveryIntervalMs: 3_600_000, healthCheckTimeoutMs: 20_000, healthConcurrency: 4 },
      sources: [source],
      resolveCredential: () => Promise.resolve({ username: 'opencode', password: preview.password }),
      clock: systemClock,
      logger: silentLogger,
    });
    onTestFinished(() => fleet.close());
    fleet.start();
    const streamRequests = (): number => tunnel.count({ path: '/api/event' });
    const before = streamRequests();
    const countServices = async (): Promise<number> =>
      new Set((await fleet.survey()).instances.map(({ server }) => server.key)).size;
    const countHealthy = async (): Promise<number> => {
      const all = (await fleet.refresh()).instances.flatMap(({ server }) => server.endpoints);
      return new Set(all.filter(({ result }) => result.status === 'healthy').map(({ id }) => id)).size;
    };
    await until('all three to be healthy', async () => (await countHealthy()) === 3);
    expect(await countServices()).toBe(3);
    expect(streamRequests()).toBe(before);

    const id = await createSession();
    await prompt(id, 'slow 200 50: word');
    await until('the two addresses to be joined', async () => (await countServices()) === 2);
    const both = fleet.snapshot().instances.find(({ server }) => server.endpoints.length === 2);
    expect(both?.server.endpoints.map(({ candidate: { key } }) => key).toSorted()).toEqual(['direct', 'tunnel']);
    await preview.json('POST', `/api/session/${id}/interrupt`).catch(() => {});
    await until('the streams to end', () => tunnel.openStreams === 0);
    const requestsSoFar = streamRequests();
    expect(await countServices()).toBe(2);
    expect(streamRequests()).toBe(requestsSoFar);

    // After a restart, another process may answer at either address.
    await preview.kill9();
    await until('both endpoints to be gone', async () => (await countHealthy()) === 1);
    await preview.restart();
    await until('all three to be back', async () => (await countHealthy()) === 3);
    expect(await countServices()).toBe(3);
  });
});
