// npm run bench: measures the figures that the README promises, prints a table and keeps the samples in bench/results.
// Arguments: names of figures (default: all but node-idle, which takes twenty minutes, and against), --pairs <n>,
// --seconds <n> of browsing the LAN, --server <path> for another build, and --old <path>, an older build for `against`.
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import type { Figure } from './figure.ts';
import { againstFigures } from './figures/against.ts';
import { crowdFigures } from './figures/crowd.ts';
import { firstTokenFigures } from './figures/first-token.ts';
import { inFlightFigures } from './figures/in-flight.ts';
import { lanFigures } from './figures/lan.ts';
import { memoryFigures } from './figures/memory.ts';
import { nodeIdleFigures } from './figures/node-idle.ts';
import { nodeFigures } from './figures/node.ts';
import { renameFigures } from './figures/rename.ts';
import { reportedFigures } from './figures/reported.ts';
import { silentFigures } from './figures/silent.ts';
import { sizeFigures } from './figures/sizes.ts';
import { startFigures } from './figures/start.ts';
import { surveyFigures } from './figures/survey.ts';
import { tailnetFigures } from './figures/tailnet.ts';
import { watchFigures } from './figures/watch.ts';
import { endpointFigures } from './figures/endpoints.ts';
import { Stage } from './stage.ts';
import { renderTable } from './table.ts';

const PAIRS = 31;
const LAN_SAMPLES = 15;
const SURVEY_SIZES = [1, 10, 50, 200];

const FIGURES: Readonly<Record<string, (stage: Stage, pairs: number) => Promise<readonly Figure[]>>> = {
  start: startFigures,
  survey: (stage, pairs) => surveyFigures(stage, SURVEY_SIZES, pairs),
  silent: silentFigures,
  memory: (stage) => memoryFigures(stage, 7),
  rename: renameFigures,
  'in-flight': inFlightFigures,
  'first-token': firstTokenFigures,
  crowd: (stage) => crowdFigures(stage, 3),
  lan: (stage) => lanFigures(stage, LAN_SAMPLES, Number(values.seconds)),
  sizes: sizeFigures,
  node: nodeFigures,
  tailnet: (stage) => tailnetFigures(stage, 7),
  reported: reportedFigures,
  'node-idle': nodeIdleFigures,
  endpoints: endpointFigures,
  watch: watchFigures,
  against: (stage, pairs) => againstFigures(stage, values.old ?? '', [10, 50, 200], pairs),
};

/** Measured only if named. */
const LONG: ReadonlySet<string> = new Set(['node-idle', 'against']);

const { values, positionals } = parseArgs({
  options: {
    pairs: { type: 'string', default: String(PAIRS) },
    seconds: { type: 'string', default: '30' },
    server: { type: 'string' },
    old: { type: 'string' },
  },
  allowPositionals: true,
});
const wanted = positionals.length > 0 ? positionals : Object.keys(FIGURES).filter((name) => !LONG.has(name));
const unknown = wanted.filter((name) => FIGURES[name] === undefined);
if (unknown.length > 0)
  throw new Error(`Expected any of ${Object.keys(FIGURES).join(', ')}; got ${unknown.join(', ')}`);

const startedAt = new Date().toISOString();
const loadBefore = loadavg();
const figures: Figure[] = [];
{
  await using stage = await Stage.open(values.server);
  for (const name of wanted) {
    process.stderr.write(`measuring ${name} …\n`);
    const measured = (await FIGURES[name]?.(stage, Number(values.pairs))) ?? [];
    figures.push(...measured);
    process.stdout.write(`${renderTable(measured)}\n\n`);
  }
}
const folder = fileURLToPath(new URL('results/', import.meta.url));
await mkdir(folder, { recursive: true });
const file = `${folder}${startedAt.replaceAll(':', '-')}.json`;
const machine = {
  node: process.version,
  platform: process.platform,
  cpus: cpus().length,
  loadBefore,
  loadAfter: loadavg(),
};
await writeFile(file, `${JSON.stringify({ startedAt, machine, figures }, undefined, 1)}\n`);
process.stdout.write(`${renderTable(figures)}\n\nSamples: ${file}\n`);
