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

/** Longer than any event takes. */
const DEADLINE_MS = 60_000;

describe.skipIf(isMissing(PREVIEW_OPENCODE))('two connections to the preview', () => {
  let model: ScriptedModel;
  let preview: Preview;
  let tunnel: FaultProxy;
  /** Another process of the same person, over the same store. */
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
  const session = async (): Promise<string> => {
    const location = { directory: preview.directory };
    return (await preview.json<{ data: { id: string } }>('POST', '/api/session', { location })).data.id;
  };
  const prompt = (id: string, text: string, at = preview): Promise<unknown> =>
    at.json('POST', `/api/session/${id}/prompt`, { prompt: { text }, delivery: 'queue' });

  test('are one process if both emit the same event; another process on the same store is not', async () => {
    const ended = new AbortController();
    const deps = { clock: systemClock, deadlineMs: DEADLINE_MS };
    const same = isSameByEvents(via(preview.url), via(tunnel.url), deps, ended.signal);
    const another = isSameByEvents(via(preview.url), via(second.url), deps, ended.signal);
    let over = false;
    void another.then(() => (over = true));
    await tunnel.waitForRequest({ path: '/api/event' });
    const id = await session();
    await prompt(id, 'echo: here');
    await prompt(await session(), 'echo: there', second);
    await model.waitForTurn('echo: there');
    expect(await same).toBe(true);
    // By then both turns have sent all of their events.
    await until('both turns to end', async () => {
      const active = await Promise.all([preview, second].map((one) => one.json('GET', '/api/session/active')));
      return active.every((one) => Object.keys((one as { data: object }).data).length === 0);
    });
    expect(over).toBe(false);
    ended.abort();
    expect(await another).toBe(false);
  });

  test('are listed as two, without event streams, until something runs; then as one', async () => {
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
    const listened = (): number => tunnel.count({ path: '/api/event' });
    const before = listened();
    const services = async (): Promise<number> =>
      new Set((await fleet.survey()).instances.map(({ server }) => server.key)).size;
    const healthy = async (): Promise<number> => {
      const all = (await fleet.refresh()).instances.flatMap(({ server }) => server.endpoints);
      return new Set(all.filter(({ result }) => result.status === 'healthy').map(({ id }) => id)).size;
    };
    await until('all three to be healthy', async () => (await healthy()) === 3);
    expect(await services()).toBe(3);
    expect(listened()).toBe(before);

    const id = await session();
    await prompt(id, 'slow 200 50: word');
    await until('the two addresses to be one', async () => (await services()) === 2);
    const both = fleet.snapshot().instances.find(({ server }) => server.endpoints.length === 2);
    expect(both?.server.endpoints.map(({ candidate: { key } }) => key).toSorted()).toEqual(['direct', 'tunnel']);
    await preview.json('POST', `/api/session/${id}/interrupt`).catch(() => {});
    await until('the streams to end', () => tunnel.openStreams === 0);
    const streams = listened();
    expect(await services()).toBe(2);
    expect(listened()).toBe(streams);

    // By now another process may answer there.
    await preview.kill9();
    await until('both to be gone', async () => (await healthy()) === 1);
    await preview.restart();
    await until('all three to be back', async () => (await healthy()) === 3);
    expect(await services()).toBe(3);
  });
});
