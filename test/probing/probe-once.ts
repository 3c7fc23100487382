import { realpath } from 'node:fs/promises';
import type { RequestListener } from 'node:http';

import { onTestFinished } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { Credential } from '../../src/http/exchange.ts';
import type { Candidate } from '../../src/model/candidate.ts';
import { probe } from '../../src/probing/probe.ts';
import type { Look, ProbeTask } from '../../src/probing/probe-task.ts';
import { createSameDirectory } from '../../src/probing/same-directory.ts';
import { candidate } from '../fleet/candidates.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { listenHttp } from '../rig/http-listener.ts';

/** A fake opencode that runs until the end of the test. */
export async function fakeOpencode(options?: FakeOptions): Promise<FakeOpencode> {
  const fake = await startFakeOpencode(options);
  onTestFinished(() => fake.close());
  return fake;
}

/** The URL of a server that runs until the end of the test. */
export async function server(handler: RequestListener): Promise<string> {
  const { url, close } = await listenHttp(handler);
  onTestFinished(close);
  return url;
}

interface AskOptions extends Partial<
  Pick<ProbeTask, 'parts' | 'identity' | 'elsewhere' | 'credentialProblem' | 'known' | 'version'>
> {
  readonly credential?: Credential;
  /** Aborts the probe when it resolves, as the time limit does. */
  readonly giveUp?: Promise<unknown>;
}

/** Probes once, and counts the requests. */
export async function ask(
  target: string | Candidate,
  options: AskOptions = {},
): Promise<Look & { readonly requests: number }> {
  const targetCandidate = typeof target === 'string' ? candidate({ url: target }) : target;
  const { credential, giveUp, ...rest } = options;
  const controller = new AbortController();
  void giveUp?.then(() => controller.abort());
  let requests = 0;
  const look = await probe(
    {
      candidate: targetCandidate,
      connection: { endpoint: targetCandidate.endpoint, ...(credential === undefined ? {} : { credential }) },
      parts: [],
      limitMs: 60_000,
      signal: controller.signal,
      ...rest,
    },
    { clock: systemClock, sameDirectory: createSameDirectory(realpath), onRequest: () => (requests += 1) },
  );
  return { ...look, requests };
}

/** Resolves when the fake has received a request for the route. */
export async function whenAsked(fake: FakeOpencode, route: Parameters<FakeOpencode['count']>[0]): Promise<void> {
  while (fake.count(route) === 0) await new Promise((resolve) => setImmediate(resolve));
}
