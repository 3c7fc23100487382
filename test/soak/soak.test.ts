import { randomInt } from 'node:crypto';
import process from 'node:process';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type Fault, type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import type { McpChild } from '../rig/programs/mcp-child.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from '../real/stage.ts';

/** `npm run soak -- --minutes N --seed S` sets both; without them, the run is short and has a fixed seed. */
const MINUTES = Number(process.env['SOAK_MINUTES'] ?? 0);
const SEED = Number(process.env['SOAK_SEED'] ?? (MINUTES > 0 ? randomInt(1_000_000) : 7));
const FEWEST_SENDS = 16;

const REQUESTS = {
  prompt: { method: 'POST', path: /prompt_async$/ },
  events: { path: '/event' },
  messages: { method: 'GET', path: /\/message/ },
  status: { path: '/session/status' },
} as const;

/** Faults of proxies, tunnels and gateways. */
const FAULTS: readonly Fault[] = [
  { kind: 'reset' },
  { kind: 'lose-response' },
  { kind: 'cut-request' },
  { kind: 'cut-response', afterBytes: 40 },
  { kind: 'delay', ms: 400 },
  { kind: 'respond', status: 504, headers: { 'content-type': 'text/html' }, body: '<html>timed out' },
  { kind: 'respond', status: 502, headers: { 'content-type': 'application/json' }, body: '{"cut' },
  { kind: 'respond', status: 503, body: '' },
];

interface SendReport {
  readonly message: string;
  readonly expected: string;
  readonly faults: readonly string[];
  readonly outcome: string;
  readonly text: string;
}

describe.skipIf(isMissing(PINNED_OPENCODE))(`an opencode behind two proxies that break at random, seed ${SEED}`, () => {
  let stage: Stage;
  let server: McpChild;
  let proxies: readonly FaultProxy[];
  const reports: SendReport[] = [];
  const random = generator(SEED);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;

  beforeAll(async () => {
    stage = await openStage();
    const opencode = await stage.opencode();
    proxies = await Promise.all([startFaultProxy(opencode.url), startFaultProxy(opencode.url)]);
    for (const { port } of proxies) {
      const { directory: cwd, port: localPort } = opencode;
      const registration = { name: 'soaked', hostname: 'test-host', id: 'soaked', cwd, port, localPort };
      await stage.registry.add(registration, { file: `soaked-${port}.json` });
    }
    server = await stage.server();
    await until('both ways to be one instance', async () => {
      const { instances } = (await server.call('instances')).result.structuredContent as {
        instances: { also?: object }[];
      };
      return instances.length === 1 && instances[0]?.also !== undefined;
    });
  });
  afterAll(async () => {
    await stage?.close();
    await Promise.all(proxies?.map((proxy) => proxy.close()) ?? []);
  });

  /** Adds one to three faults for the next send, at one proxy or both; returns their names. */
  function addFaults(): string[] {
    return Array.from({ length: 1 + Math.floor(random() * 3) }, () => {
      const where = pick(Object.keys(REQUESTS) as (keyof typeof REQUESTS)[]);
      const fault = pick(FAULTS);
      const times = 1 + Math.floor(random() * 2);
      const brokenProxies = random() < 0.5 ? proxies : [pick(proxies)];
      for (const proxy of brokenProxies) proxy.rule(REQUESTS[where], fault, times);
      return `${where} ${fault.kind}${'status' in fault ? ` ${fault.status}` : ''} ×${times} at ${brokenProxies.length}`;
    });
  }

  /** Disturbs a running turn: streams break or stall, or a proxy is down. */
  async function disturb(): Promise<string> {
    const what = pick(['nothing', 'cut', 'stall', 'down'] as const);
    const proxy = pick(proxies);
    if (what === 'cut') proxy.cutStreams();
    if (what === 'stall') proxy.stallStreams();
    if (what === 'down') await proxy.down();
    return what;
  }

  async function repair(): Promise<void> {
    for (const proxy of proxies) {
      proxy.pass();
      await proxy.up();
    }
  }

  async function sendOnce(index: number): Promise<SendReport> {
    await repair();
    const word = `word${index}of${SEED}`;
    const isSlow = random() < 0.5;
    const message = isSlow ? `slow 12 60: ${word}` : `echo: ${word}`;
    const expected = expectedReply(message);
    const faults = addFaults();
    const session_id = random() < 0.3 ? await newSession() : undefined;
    const request_id = random() < 0.5 ? `soak-${SEED}-${index}` : undefined;
    const input = { instance: 'soaked', message, ...(session_id && { session_id }), ...(request_id && { request_id }) };
    const call = server.call('send', input);
    if (isSlow) {
      await Promise.race([until('the turn', () => stage.model.turns(message) > 0), call]);
      faults.push(`then ${await disturb()}`);
    }
    let { result, text } = await call;
    // A model that is not sure of the outcome repeats the call.
    if (request_id !== undefined && outcomeOf(result) !== 'completed')
      ({ result, text } = await server.call('send', input));
    return { message, expected, faults, outcome: outcomeOf(result), text };
  }

  async function newSession(): Promise<string | undefined> {
    const { result } = await server.call('create_session', { instance: 'soaked' });
    return (result.structuredContent as { session?: { id: string } } | undefined)?.session?.id;
  }

  test(
    'no message is sent twice, no answer is mixed up, and each reported outcome is true',
    async () => {
      const untilMs = performance.now() + MINUTES * 60_000;
      for (let index = 0; index < FEWEST_SENDS || performance.now() < untilMs; index += 1) {
        const report = await sendOnce(index);
        reports.push(report);
        if (MINUTES > 0)
          process.stdout.write(
            `${report.outcome === 'completed' ? `completed: ${report.message}` : describeSend(report)}\n`,
          );
        checkReport(report);
      }
      await repair();
      // Wait for turns that outlived their call.
      await server.call('wait', { instances: ['soaked'] });
      for (const report of reports)
        expect(stage.model.turns(report.message), describeSend(report)).toBeLessThanOrEqual(1);
      const outcomes = reports.map(({ outcome }) => outcome);
      process.stdout.write(`soak: ${reports.length} sends, seed ${SEED}: ${JSON.stringify(countEach(outcomes))}\n`);
      // A soak in which few sends complete proves little.
      expect(outcomes.filter((outcome) => outcome === 'completed').length).toBeGreaterThan(reports.length / 2);
    },
    (MINUTES + 15) * 60_000,
  );

  function checkReport(report: SendReport): void {
    const turns = stage.model.turns(report.message);
    expect(turns, describeSend(report)).toBeLessThanOrEqual(1);
    expect(report.text, describeSend(report)).not.toMatch(/bug worth reporting|failed inside/);
    if (report.outcome === 'completed') {
      expect(turns, describeSend(report)).toBe(1);
      expect(report.text, describeSend(report)).toContain(report.expected);
      const others = reports
        .filter(({ message }) => message !== report.message)
        .map(({ message }) => message.split(' ').at(-1) ?? '');
      for (const word of others)
        expect(report.text.includes(`${word} `) || report.text.endsWith(word), describeSend(report)).toBe(false);
    }
    if (/nothing was sent|was not taken/.test(report.text)) expect(turns, describeSend(report)).toBe(0);
  }
});

function outcomeOf({
  structuredContent,
  isError,
}: {
  structuredContent?: unknown;
  isError?: boolean | undefined;
}): string {
  return isError === true ? 'error' : String((structuredContent as { outcome?: unknown } | undefined)?.outcome);
}

function describeSend({ message, faults, outcome, text }: SendReport): string {
  return `${message} (${faults.join('; ')}): ${outcome}: ${text}`;
}

function countEach(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

/** Generates numbers from 0 to 1 (mulberry32); the same seed gives the same numbers. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
