import { expect, it } from 'vitest';

import { judgeRegistry, type Evidence } from '../../../src/connected/cleanup/judge.ts';
import type { RunStateFile } from '../../../src/connected/run-state.ts';
import type {
  RegistrySurvey,
  SurveyedClaim,
  SurveyedRegistration,
} from '../../../src/connected/survey/registry-survey.ts';

function surveyOf(found: Partial<RegistrySurvey>): RegistrySurvey {
  const nothing = { registrations: [], odd: [], claims: [], passwords: [], leftOut: 0 };
  return { host: 'relay', directory: '/registry', isMissing: false, isOursAlone: true, ...nothing, ...found };
}

const REGISTERED: SurveyedRegistration = {
  name: 'app',
  isMine: true,
  ownerUid: 1000,
  version: 'as read',
  registration: { id: 'id-app', port: 4100 },
  listens: 'none',
};
const DEAD: SurveyedClaim = {
  name: 'app',
  isMine: true,
  holder: 'dead',
  id: 'id-app',
  pid: 7,
  host: 'relay',
  line: 'id-app 7 1 relay',
};

function judge(found: Partial<RegistrySurvey>, extra: Partial<Evidence> = {}): (readonly [string, string, boolean])[] {
  const findings = judgeRegistry({ where: 'relay', survey: surveyOf(found), states: [], ...extra });
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

it('finds a registration with a dead claim and a silent port dead', () => {
  expect(judge({ registrations: [REGISTERED], claims: [DEAD] })).toEqual([
    ['registration', 'the process that held its name (pid 7) has ended, and nothing listens on its port 4100', true],
  ]);
});

it('leaves a registration if something listens on its port, or may', () => {
  for (const [listens, reason] of [
    ['unknown', 'it is not known whether something listens on its port'],
    ['some', 'but something listens on its port 4100'],
  ] as const) {
    expect(judge({ registrations: [{ ...REGISTERED, listens }], claims: [DEAD] })).toEqual([
      ['registration', expect.stringContaining(reason), false],
    ]);
  }
});

it.each<SurveyedClaim['holder']>(['alive', 'elsewhere', 'unknown'])(
  'leaves a claim alone whose holder is %s',
  (holder) => {
    const claims = [{ ...DEAD, holder }];
    expect(judge({ claims })).toEqual([]);
    expect(judge({ registrations: [REGISTERED], claims }).some(([, , isRemoved]) => isRemoved)).toBe(false);
  },
);

it("leaves another user's claim, even of a dead holder", () => {
  expect(judge({ claims: [{ ...DEAD, isMine: false }] })).toEqual([]);
});

it('leaves the claim of an instance whose wrapper runs here', () => {
  expect(judge({ claims: [DEAD] }, { states: [running('another')] })).toHaveLength(1);
  expect(judge({ claims: [DEAD] }, { states: [running('id-app')] })).toEqual([]);
});

it('leaves everything in a directory that is not ours alone', () => {
  const found = { registrations: [REGISTERED], claims: [DEAD], isOursAlone: false };
  expect(judge(found)).toEqual([['registration', expect.stringContaining('others can write'), false]]);
});
