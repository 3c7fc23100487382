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

/** The duration of one round by this process's clock. */
export interface BareRound {
  readonly ms: number;
}

const { ports, concurrency, generation } = JSON.parse(process.argv[2] ?? '{}') as BareSurveyOptions;

const PASSWORD = `Basic ${btoa(`opencode:${FLEET_PASSWORD}`)}`;

await serveOrders({}, async () => {
  const startMs = performance.now();
  const remainingPorts = ports.values();
  // All workers take ports from one iterator.
  const worker = async (): Promise<void> => {
    for (const port of remainingPorts) await survey(`http://127.0.0.1:${port}`);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  const round: BareRound = { ms: performance.now() - startMs };
  return round;
});
process.exit(0);

async function survey(url: string): Promise<void> {
  if (generation === 2) {
    await Promise.all(['/api/session?limit=100', '/api/session/active'].map((path) => getJson(url + path)));
    return;
  }
  const { directory } = (await getJson(`${url}/path`)) as { readonly directory: string };
  const paths = ['/session/status', `/session?directory=${encodeURIComponent(directory)}&roots=true&limit=1`];
  await Promise.all(paths.map((path) => getJson(url + path)));
}

async function getJson(url: string): Promise<unknown> {
  const response = await fetch(url, generation === 2 ? { headers: { authorization: PASSWORD } } : {});
  return JSON.parse(await response.text()) as unknown;
}
