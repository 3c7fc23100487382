/**
 * Baseline of `instances`: only the requests of a survey, by the global fetch with keep-alive. Its only argument is
 * `BareSurveyOptions` as JSON.
 */
import { FLEET_PASSWORD } from './fake-service.ts';
import { serveOrders } from './orders.ts';

export interface BareSurveyOptions {
  readonly ports: readonly number[];
  /** The number of instances with requests at the same time. */
  readonly concurrency: number;
  /** Default 1. */
  readonly generation?: 1 | 2;
}

/** One round, by this process's clock. */
export interface BareRound {
  readonly ms: number;
}

const { ports, concurrency, generation } = JSON.parse(process.argv[2] ?? '{}') as BareSurveyOptions;

const PASSWORD = `Basic ${btoa(`opencode:${FLEET_PASSWORD}`)}`;

await serveOrders({}, async () => {
  const startMs = performance.now();
  const left = ports.values();
  // All workers take ports from one iterator.
  const worker = async (): Promise<void> => {
    for (const port of left) await ask(`http://127.0.0.1:${port}`);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  const round: BareRound = { ms: performance.now() - startMs };
  return round;
});
process.exit(0);

async function ask(url: string): Promise<void> {
  if (generation === 2) {
    await Promise.all(['/api/session?limit=100', '/api/session/active'].map((path) => get(url + path)));
    return;
  }
  const { directory } = (await get(`${url}/path`)) as { readonly directory: string };
  const parts = ['/session/status', `/session?directory=${encodeURIComponent(directory)}&roots=true&limit=1`];
  await Promise.all(parts.map((path) => get(url + path)));
}

async function get(url: string): Promise<unknown> {
  const response = await fetch(url, generation === 2 ? { headers: { authorization: PASSWORD } } : {});
  return JSON.parse(await response.text()) as unknown;
}
