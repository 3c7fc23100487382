import { expect, it } from 'vitest';

import { judgeRegistry, type Evidence } from '../../../src/connected/cleanup/judge.ts';
import type { RegistrySurvey, SurveyedClaim } from '../../../src/connected/relay/relay-survey.ts';
import { SurveyReader } from '../../../src/connected/relay/relay-survey.ts';
import type { RunStateFile } from '../../../src/connected/run-state.ts';

/** What a survey says in these lines. */
function surveyOf(...lines: readonly string[]): RegistrySurvey {
  const reader = new SurveyReader();
  for (const line of ['host relay', 'uid 1000', 'directory drwx------ 1000 yes /registry', ...lines]) reader.take(line);
  const survey = reader.take('done 1');
  if (survey === undefined) throw new Error('Expected a whole survey');
  return survey;
}

const REGISTERED = ['registration mine app.json', '> {"id":"id-app","name":"app","port":4100}'];
const DEAD_CLAIM = ['claim mine dead app', '> id-app 7 1 relay'];

function judge(survey: RegistrySurvey, extra: Partial<Evidence> = {}): readonly (readonly [string, string, boolean])[] {
  const findings = judgeRegistry({ where: 'relay', survey, states: [], listens: () => 'none', ...extra });
  return findings.map(({ what, reason, action }) => [what, reason, action !== undefined]);
}

function running(id: string): RunStateFile {
  return {
    path: `/state/${id}.json`,
    isRunning: true,
    state: {
      id,
      name: id,
      pid: 8,
      opencodePid: 9,
      port: 4100,
      directory: '/home/user/project',
      registryFile: '/registry/app.json',
      logFile: '/state/log',
      startedAt: '2026-01-01T00:00:00Z',
      version: '0.1.0',
    },
  };
}

it('takes a dead claim and a silent port for dead', () => {
  expect(judge(surveyOf(...REGISTERED, ...DEAD_CLAIM))).toEqual([
    ['registration', 'the process that held its name (pid 7) has ended, and nothing listens on its port 4100', true],
  ]);
});

it('leaves a registration where the system does not tell who listens', () => {
  expect(judge(surveyOf(...REGISTERED, ...DEAD_CLAIM), { listens: () => 'unknown' })).toEqual([
    ['registration', expect.stringContaining('whether something listens on its port is not known'), false],
  ]);
});

it.each<SurveyedClaim['holder']>(['alive', 'elsewhere', 'unknown'])(
  'leaves a claim alone whose holder is %s',
  (holder) => {
    const claim = [`claim mine ${holder} app`, '> id-app 7 1 relay'];
    expect(judge(surveyOf(...claim))).toEqual([]);
    expect(judge(surveyOf(...REGISTERED, ...claim)).some(([, , isRemoved]) => isRemoved)).toBe(false);
  },
);

it("leaves another user's claim alone, whatever is said of its holder", () => {
  expect(judge(surveyOf('claim other dead app', '> id-app 7 1 relay'))).toEqual([]);
});

it('leaves a claim alone of an instance whose wrapper runs here', () => {
  expect(judge(surveyOf(...DEAD_CLAIM), { states: [running('another')] })).toHaveLength(1);
  expect(judge(surveyOf(...DEAD_CLAIM), { states: [running('id-app')] })).toEqual([]);
});

it('takes a claim that does not name its holder for no proof', () => {
  for (const line of ['> id-app', '> id-app x 1 relay', '> id-app 7 1 ', '>  7 1 relay']) {
    expect(judge(surveyOf(...REGISTERED, 'claim mine dead app', line)).some(([, , isRemoved]) => isRemoved)).toBe(
      false,
    );
  }
});

it('finds nothing in an answer that makes no sense', () => {
  const nonsense = [
    'registration',
    '> {',
    'claim',
    'claim mine dead',
    'password',
    'password mine old ../x',
    'port',
    'port -1',
  ];
  expect(
    judge(
      surveyOf(...nonsense, 'claim mine dead ', '> id-app 7 1 relay', 'odd', 'odd unheard of', '', 'uid x', 'done'),
    ),
  ).toEqual([]);
});
