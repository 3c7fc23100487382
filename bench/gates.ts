// npm run bench:gates: the limits that CI checks on every commit, in a few minutes. Counters are exact; ratios may reach twice
// their goal, because the machine is shared. Every gate is also checked against a wrong limit, which it must miss.
import { atMost, exactly, type Goal, type Unit } from './figure.ts';
import { LIMITS, mostInFlight } from './figures/in-flight.ts';
import { measureMemory, MOST_SURVEYED_MB } from './figures/memory.ts';
import { FIRST_BYTE_RATIO, firstBytes, openNodeScene, REQUESTS, whoisAsked } from './figures/node.ts';
import { EACH, MACHINES, REPORTED_RATIO, reportedSurvey } from './figures/reported.ts';
import { silentSurvey } from './figures/silent.ts';
import { listBytes, MOST_LIST_BYTES } from './figures/sizes.ts';
import { measureStarts, MODERN_MEMORY_RATIO, MODERN_RATIO, SILENT_RATIO, START_RATIO } from './figures/start.ts';
import { REQUESTS_PER_INSTANCE, REQUESTS_PER_SERVICE, survey, SURVEY_RATIO } from './figures/survey.ts';
import { changesSeen, MOST_CHANGE_MS, openWatchScene, streaming } from './figures/watch.ts';
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
/** Today's number; more means a new import. About 40 are our own. */
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
    gate('bytes of tools/list', 'bytes', await listBytes(stage), atMost(MOST_LIST_BYTES), atMost(1_024)),
    gate('modules that ran before tools/list', 'count', bundled.length, atMost(MOST_MODULES), atMost(10)),
  ];
}

async function startGates(stage: Stage): Promise<readonly Gate[]> {
  const { bare, ours, modern, oursSilent } = await measureStarts(stage, PAIRS);
  return [
    ratioGate('start to tools/list, ours / bare', ours.ms, bare.ms, START_RATIO),
    // Processor time depends little on neighbours, so its limit is below twice the goal.
    ratioGate(
      'processor time of a start, 2026-07-28, ours / bare',
      modern.processorMs,
      bare.processorMs,
      MODERN_RATIO,
      STEADY_LENIENCE,
    ),
    gate(
      // Stable between runs; a small change of the program can move it by 2 MB.
      'resident memory at tools/list, 2026-07-28, ours / bare',
      '×',
      spreadOf(ratios(modern.residentMb, bare.residentMb)).median,
      atMost(MODERN_MEMORY_RATIO * MEMORY_LENIENCE),
      atMost(0.5),
    ),
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
  const measure = async (size: number, generation: 1 | 2, most: number): Promise<number> => {
    const { ours, theirs, complete, residentMb } = await survey(stage, size, PAIRS, generation);
    const over = `over ${size}${generation === 2 ? ' OpenCode 2' : ''}`;
    const requests = Math.max(...ours.map((round) => round.requests));
    const ms = [ours, theirs].map((rounds) => rounds.map((round) => round.ms));
    gates.push(
      gate(`requests per instance and call of instances ${over}`, 'count', requests, atMost(most), atMost(most - 1)),
      gate(`complete rows of instances ${over}`, 'count', complete, exactly(size), exactly(size + 1)),
      ratioGate(`instances ${over}, ours / bare`, ms[0] ?? [], ms[1] ?? [], SURVEY_RATIO),
    );
    return residentMb;
  };
  for (const size of [10, 50]) await measure(size, 1, REQUESTS_PER_INSTANCE);
  const surveyedMb = await measure(50, 2, REQUESTS_PER_SERVICE);
  // No Node program is as small as the wrong limit.
  gates.push(
    gate('resident memory after surveys of 50 OpenCode 2', 'MB', surveyedMb, atMost(MOST_SURVEYED_MB), atMost(30)),
  );
  return gates;
}

async function memoryGates(stage: Stage): Promise<readonly Gate[]> {
  const { surveyed, listed } = await measureMemory(stage, 3);
  const { median } = spreadOf(surveyed);
  // A survey cannot cost nothing.
  const wrong = atMost(spreadOf(listed).median);
  return [gate('resident memory after surveys of 200 instances', 'MB', median, atMost(MOST_SURVEYED_MB), wrong)];
}

async function silentGates(stage: Stage): Promise<readonly Gate[]> {
  const live = 36;
  const silent = 4;
  // Four times the default: a busy machine must not cut off live instances.
  const deadlineMs = 12_000;
  const { first, later } = await silentSurvey(stage, { live, silent, deadlineMs }, { servers: 1, callsEach: 2 });
  return Object.entries({ first, second: later }).map(([call, { complete }]) =>
    gate(
      `complete rows of the ${call} call, ${silent} of ${live + silent} silent`,
      'count',
      Math.min(...complete),
      exactly(live),
      exactly(live + silent),
    ),
  );
}

async function inFlightGates(stage: Stage): Promise<readonly Gate[]> {
  const gates: Gate[] = [];
  for (const limit of LIMITS) {
    const most = await mostInFlight(stage, limit);
    // Fewer would mean that the gate cannot see them.
    gates.push(gate(`most probes in flight, limit ${limit}`, 'count', most, exactly(limit), atMost(limit - 1)));
  }
  return gates;
}

async function nodeGates(stage: Stage): Promise<readonly Gate[]> {
  await using scene = await openNodeScene(stage);
  // A few milliseconds each, which a busy scheduler disturbs: take more samples.
  const { ours, theirs } = await firstBytes(scene, 4 * PAIRS);
  const asked = await whoisAsked(scene.list, scene.tailscaled);
  return [
    ratioGate('first byte of an event stream, by the node service / direct', ours, theirs, FIRST_BYTE_RATIO),
    gate(`whois requests for ${REQUESTS} requests of one connection`, 'count', asked, exactly(1), exactly(REQUESTS)),
  ];
}

async function reportedGates(stage: Stage): Promise<readonly Gate[]> {
  const { requests, requestsAsked, complete } = await reportedSurvey(stage);
  const all = MACHINES * EACH;
  const over = `over ${MACHINES} machines of ${EACH} instances`;
  return [
    // One request is held open at each machine.
    gate(`requests of a call of instances ${over}`, 'count', requests, atMost(MACHINES), atMost(MACHINES - 1)),
    gate(`requests ${over}, reported / asked`, '×', requests / requestsAsked, atMost(REPORTED_RATIO), atMost(1 / all)),
    gate(`complete rows of instances ${over}`, 'count', complete, exactly(all), exactly(all + 1)),
  ];
}

async function watchGates(stage: Stage): Promise<readonly Gate[]> {
  await using scene = await openWatchScene(stage, 12);
  const { requests } = await streaming(scene, 10, 1000);
  const { median } = spreadOf(await changesSeen(scene, 4));
  return [
    // One request to each of the ten writing servers may be due anyway.
    gate('requests to servers whose text is followed for a second', 'count', requests, atMost(10), atMost(-1)),
    gate(
      'from a change at a server to the answer of a held request for the states',
      'ms',
      median,
      atMost(MOST_CHANGE_MS),
      atMost(0.1),
    ),
  ];
}

function gate(name: string, unit: Unit, measured: number, limit: Goal, wrongLimit: Goal): Gate {
  return { name, unit, measured, limit, wrongLimit };
}

function ratioGate(
  name: string,
  ours: readonly number[],
  theirs: readonly number[],
  goal: number,
  lenience = LENIENCE,
): Gate {
  return gate(name, '×', spreadOf(ratios(ours, theirs)).median, atMost(goal * lenience), WRONG_RATIO);
}
