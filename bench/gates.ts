// npm run bench:gates: the limits that CI checks on every commit, in a few minutes. Counters are exact; ratios may reach twice
// their goal, because the machine is shared. Every gate is also checked against a wrong limit, which it must miss.
import { atMost, exactly } from './figure.ts';
import { LIMITS, mostInFlight } from './figures/in-flight.ts';
import { measureMemory, MOST_SURVEYED_MB } from './figures/memory.ts';
import { FIRST_BYTE_RATIO, firstBytes, openNodeScene, REQUESTS, whoisAsked } from './figures/node.ts';
import { EACH, MACHINES, REPORTED_RATIO, reportedSurvey } from './figures/reported.ts';
import { silentSurvey } from './figures/silent.ts';
import { listBytes, MOST_LIST_BYTES } from './figures/sizes.ts';
import { measureStarts, MODERN_MEMORY_RATIO, MODERN_RATIO, SILENT_RATIO, START_RATIO } from './figures/start.ts';
import { REQUESTS_PER_INSTANCE, REQUESTS_PER_SERVICE, survey, SURVEY_RATIO } from './figures/survey.ts';
import { changesHeard, MOST_CHANGE_MS, openWatchScene, streaming } from './figures/watch.ts';
import { describe, type Gate, problemOf } from './gate.ts';
import { loadedModules } from './loaded-modules.ts';
import { Stage } from './stage.ts';
import { ratios, spreadOf } from './statistics.ts';
import { formatNumber } from './table.ts';

const PAIRS = 11;
/** Times the goal. */
const LENIENCE = 2;
/** See the gate. */
const MEMORY_LENIENCE = 1.03;
/** For figures that vary little between runs. */
const STEADY_LENIENCE = 1.15;
/** Modules that load today; more means a new import. About 40 are ours. */
const MOST_MODULES = 129;
/** No program is ten times as fast as the same work without one. */
const WRONG_RATIO = atMost(0.1);

const GATES: readonly ((stage: Stage) => Promise<readonly Gate[]>)[] = [
  toolsListGates,
  startGates,
  surveyGates,
  memoryGates,
  silentGates,
  inFlightGates,
  nodeGates,
  reportedGates,
  watchGates,
];

const gates: Gate[] = [];
{
  await using stage = await Stage.open();
  for (const measure of GATES) {
    for (const gate of await measure(stage)) {
      gates.push(gate);
      const { name, unit, measured, limit } = gate;
      const verdict = problemOf(gate) === undefined ? 'ok' : 'MISSED';
      process.stdout.write(
        `${verdict.padEnd(6)} ${name}: ${formatNumber(measured, unit)} (${describe(limit, unit)})\n`,
      );
    }
  }
}
const problems = gates.map(problemOf).filter((problem) => problem !== undefined);
for (const problem of problems) process.stderr.write(`gate missed: ${problem}\n`);
process.stdout.write(`${gates.length - problems.length} of ${gates.length} gates hold\n`);
process.exitCode = problems.length > 0 ? 1 : 0;

async function toolsListGates(stage: Stage): Promise<readonly Gate[]> {
  const { bundled } = await loadedModules(stage);
  return [
    {
      name: 'bytes of tools/list',
      unit: 'bytes',
      measured: await listBytes(stage),
      limit: atMost(MOST_LIST_BYTES),
      wrongLimit: atMost(1_024),
    },
    {
      name: 'modules that ran before tools/list',
      unit: 'count',
      measured: bundled.length,
      limit: atMost(MOST_MODULES),
      wrongLimit: atMost(10),
    },
  ];
}

async function startGates(stage: Stage): Promise<readonly Gate[]> {
  const { bare, ours, modern, oursSilent } = await measureStarts(stage, PAIRS);
  return [
    ratioGate('start to tools/list, ours / bare', ours.ms, bare.ms, START_RATIO),
    {
      // Processor time depends little on neighbours, so its limit is below twice the goal.
      name: 'processor time of a start, 2026-07-28, ours / bare',
      unit: '×',
      measured: spreadOf(ratios(modern.processorMs, bare.processorMs)).median,
      limit: atMost(MODERN_RATIO * STEADY_LENIENCE),
      wrongLimit: WRONG_RATIO,
    },
    {
      // Stable between runs; a small change of the program can move it by 2 MB.
      name: 'resident memory at tools/list, 2026-07-28, ours / bare',
      unit: '×',
      measured: spreadOf(ratios(modern.residentMb, bare.residentMb)).median,
      limit: atMost(MODERN_MEMORY_RATIO * MEMORY_LENIENCE),
      wrongLimit: atMost(0.5),
    },
    ratioGate(
      'start to tools/list, with / without registrations that never answer',
      oursSilent.ms,
      ours.ms,
      SILENT_RATIO,
    ),
  ];
}

async function surveyGates(stage: Stage): Promise<readonly Gate[]> {
  const gates: Gate[] = [];
  for (const size of [10, 50]) {
    const { oursMs, bareMs, oursRequests, complete } = await survey(stage, size, PAIRS);
    gates.push(
      {
        name: `requests per instance and call of instances over ${size}`,
        unit: 'count',
        measured: Math.max(...oursRequests),
        limit: atMost(REQUESTS_PER_INSTANCE),
        wrongLimit: atMost(REQUESTS_PER_INSTANCE - 1),
      },
      {
        name: `complete rows of instances over ${size}`,
        unit: 'count',
        measured: complete,
        limit: exactly(size),
        wrongLimit: exactly(size + 1),
      },
      ratioGate(`instances over ${size}, ours / bare`, oursMs, bareMs, SURVEY_RATIO),
    );
  }
  const { oursMs, bareMs, oursRequests, complete, residentMb } = await survey(stage, 50, PAIRS, 2);
  gates.push(
    {
      name: 'requests per OpenCode 2 and call of instances over 50',
      unit: 'count',
      measured: Math.max(...oursRequests),
      limit: atMost(REQUESTS_PER_SERVICE),
      wrongLimit: atMost(REQUESTS_PER_SERVICE - 1),
    },
    {
      name: 'complete rows of instances over 50 OpenCode 2',
      unit: 'count',
      measured: complete,
      limit: exactly(50),
      wrongLimit: exactly(51),
    },
    ratioGate('instances over 50 OpenCode 2, ours / bare', oursMs, bareMs, SURVEY_RATIO),
    {
      name: 'resident memory after surveys of 50 OpenCode 2',
      unit: 'MB',
      measured: residentMb,
      limit: atMost(MOST_SURVEYED_MB),
      // No Node program is that small.
      wrongLimit: atMost(30),
    },
  );
  return gates;
}

async function memoryGates(stage: Stage): Promise<readonly Gate[]> {
  const { surveyed, listed } = await measureMemory(stage, 3);
  return [
    {
      name: 'resident memory after surveys of 200 instances',
      unit: 'MB',
      measured: spreadOf(surveyed).median,
      limit: atMost(MOST_SURVEYED_MB),
      // Asking them cannot be free.
      wrongLimit: atMost(spreadOf(listed).median),
    },
  ];
}

async function silentGates(stage: Stage): Promise<readonly Gate[]> {
  const live = 36;
  const silent = 4;
  // Four times the default: a busy machine must not cut off live instances.
  const deadlineMs = 12_000;
  const { first, later } = await silentSurvey(stage, { live, silent, deadlineMs }, { servers: 1, callsEach: 2 });
  const gate = (call: string, complete: readonly number[]): Gate => ({
    name: `complete rows of the ${call} call, ${silent} of ${live + silent} silent`,
    unit: 'count',
    measured: Math.min(...complete),
    limit: exactly(live),
    wrongLimit: exactly(live + silent),
  });
  return [gate('first', first.complete), gate('second', later.complete)];
}

async function inFlightGates(stage: Stage): Promise<readonly Gate[]> {
  const gates: Gate[] = [];
  for (const limit of LIMITS) {
    gates.push({
      name: `most probes in flight with a limit of ${limit}`,
      unit: 'count',
      measured: await mostInFlight(stage, limit),
      // Fewer would mean that the gate cannot see them.
      limit: exactly(limit),
      wrongLimit: atMost(limit - 1),
    });
  }
  return gates;
}

async function nodeGates(stage: Stage): Promise<readonly Gate[]> {
  await using scene = await openNodeScene(stage);
  // A few milliseconds each, which a busy scheduler disturbs: take more samples.
  const { ours, theirs } = await firstBytes(scene, 4 * PAIRS);
  return [
    ratioGate('first byte of an event stream, by the node service / direct', ours, theirs, FIRST_BYTE_RATIO),
    {
      name: `whois asked for ${REQUESTS} requests of one connection`,
      unit: 'count',
      measured: await whoisAsked(scene.list, scene.tailscaled),
      limit: exactly(1),
      wrongLimit: exactly(REQUESTS),
    },
  ];
}

async function reportedGates(stage: Stage): Promise<readonly Gate[]> {
  const { requests, requestsAsked, complete } = await reportedSurvey(stage);
  const over = `over ${MACHINES} machines of ${EACH} instances`;
  return [
    {
      name: `requests of a call of instances ${over}`,
      unit: 'count',
      measured: requests,
      limit: atMost(MACHINES),
      // One request is held open at each.
      wrongLimit: atMost(MACHINES - 1),
    },
    {
      name: `requests ${over}, reported / asked`,
      unit: '×',
      measured: requests / requestsAsked,
      limit: atMost(REPORTED_RATIO),
      wrongLimit: atMost(1 / (MACHINES * EACH)),
    },
    {
      name: `complete rows of instances ${over}`,
      unit: 'count',
      measured: complete,
      limit: exactly(MACHINES * EACH),
      wrongLimit: exactly(MACHINES * EACH + 1),
    },
  ];
}

async function watchGates(stage: Stage): Promise<readonly Gate[]> {
  await using scene = await openWatchScene(stage, 12);
  const { requests } = await streaming(scene, 10, 1000);
  const changes = await changesHeard(scene, 4);
  return [
    {
      name: 'requests to servers whose text is followed for a second',
      unit: 'count',
      measured: requests,
      // One of them may be due anyway.
      limit: atMost(10),
      wrongLimit: atMost(-1),
    },
    {
      name: 'from a change at a server to the answer of a held request for the states',
      unit: 'ms',
      measured: spreadOf(changes).median,
      limit: atMost(MOST_CHANGE_MS),
      wrongLimit: atMost(0.1),
    },
  ];
}

function ratioGate(name: string, ours: readonly number[], theirs: readonly number[], goal: number): Gate {
  return {
    name,
    unit: '×',
    measured: spreadOf(ratios(ours, theirs)).median,
    limit: atMost(goal * LENIENCE),
    wrongLimit: WRONG_RATIO,
  };
}
