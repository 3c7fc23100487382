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
  version: 'version-1',
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

function stateOf(id: string, isRunning: boolean): RunStateFile {
  return {
    path: `/state/${id}.json`,
    isRunning,
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

it('judges a registration dead if its claim is dead and its port silent', () => {
  expect(judge({ registrations: [REGISTERED], claims: [DEAD] })).toEqual([
    ['registration', 'the process that held its name (pid 7) has ended, and nothing listens on its port 4100', true],
  ]);
});

it.each<readonly [string, Partial<SurveyedRegistration>, string]>([
  ['something listens on its port', { listens: 'some' }, 'has ended, but something listens on its port 4100'],
  ['something may listen on its port', { listens: 'unknown' }, 'but it is not known whether something listens'],
  ["it is another user's registration", { isMine: false }, 'belongs to uid 1000, not to this user'],
])('keeps a registration with a dead claim if %s', (_, fields, reason) => {
  const registrations = [{ ...REGISTERED, ...fields }];
  expect(judge({ registrations, claims: [DEAD] })).toEqual([['registration', expect.stringContaining(reason), false]]);
});

it('reports nothing about a registration whose port listens or whose wrapper runs here', () => {
  expect(judge({ registrations: [{ ...REGISTERED, listens: 'some' }] })).toEqual([]);
  expect(judge({ registrations: [REGISTERED], claims: [DEAD] }, { states: [stateOf('id-app', true)] })).toEqual([]);
});

it('judges a registration without a claim dead if its wrapper ran here and has ended', () => {
  const reason = 'its opencode-connected (pid 8) has ended, and nothing listens on its port 4100';
  const registrations = [REGISTERED];
  expect(judge({ registrations }, { states: [stateOf('id-app', false)] })).toEqual([['registration', reason, true]]);
});

it.each<readonly [string, Partial<SurveyedRegistration>, readonly SurveyedClaim[]]>([
  ['without a claim', {}, []],
  ['without an id', { registration: { port: 4100 } }, []],
  ['without an id, whose name has a dead claim', { registration: { port: 4100 } }, [DEAD]],
  ['whose name another instance has claimed', {}, [{ ...DEAD, id: 'another' }]],
])('keeps a silent registration %s', (_, fields, claims) => {
  const reason = 'its writer is unknown, so it may be alive; remove it by hand if it is dead';
  const registrations = [{ ...REGISTERED, ...fields }];
  expect(judge({ registrations, claims })).toEqual([['registration', reason, false]]);
});

it.each<readonly [SurveyedClaim['holder'], string | undefined]>([
  ['alive', undefined],
  ['elsewhere', 'is held by a process of "relay", which cannot be checked here'],
  ['unknown', 'its writer is unknown'],
])('keeps a claim, and its registration, if the holder of the claim is %s', (holder, reason) => {
  const claims = [{ ...DEAD, holder }];
  expect(judge({ claims })).toEqual([]);
  const expected = reason === undefined ? [] : [['registration', expect.stringContaining(reason), false]];
  expect(judge({ registrations: [REGISTERED], claims })).toEqual(expected);
});

it("keeps another user's claim, even if its holder is dead", () => {
  expect(judge({ claims: [{ ...DEAD, isMine: false }] })).toEqual([]);
});

it('keeps the claim of an instance whose wrapper runs here', () => {
  expect(judge({ claims: [DEAD] }, { states: [stateOf('another', true)] })).toHaveLength(1);
  expect(judge({ claims: [DEAD] }, { states: [stateOf('id-app', true)] })).toEqual([]);
});

it('keeps a file that is not a registration, and the claim of its name, which may still be in use', () => {
  expect(judge({ odd: [{ fileName: 'app.json', reason: 'is empty' }], claims: [DEAD] })).toEqual([
    ['registration', 'is empty; remove it by hand if it is in the way', false],
  ]);
});

it("keeps another user's password", () => {
  expect(judge({ passwords: [{ id: 'id-app', isMine: false, isOld: true }] })).toEqual([
    ['password', 'belongs to another user', false],
  ]);
});

it('keeps everything in a directory that other users can write to', () => {
  const found = { registrations: [REGISTERED], claims: [DEAD], isOursAlone: false };
  expect(judge(found)).toEqual([['registration', expect.stringContaining('others can write'), false]]);
});
