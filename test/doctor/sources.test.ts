import { expect, test } from 'vitest';

import { quoteName } from '../../src/base/plain-text.ts';
import { sourceChecks } from '../../src/doctor/sources.ts';
import { reportOf, type Todo } from '../../src/doctor/report.ts';
import type { Snapshot } from '../../src/model/instance.ts';

function todoOn(subject: string, reason: string): readonly Todo[] {
  const snapshot: Snapshot = {
    instances: [],
    resting: [],
    gone: [],
    notes: [{ source: 'local-relay', subject, reason }],
    sources: [{ name: 'local-relay', status: 'ok', candidates: 1, dropped: [], scannedAtMs: 0 }],
  };
  return reportOf('1', [{ id: 'sources', title: '', checks: sourceChecks(snapshot, 0) }]).todo;
}

test.each([
  ['/r/a.json', 'is not complete JSON: damaged', 'rm /r/a.json'],
  ['/r/a.json', 'is a FIFO, not a regular file; ignored', 'rm /r/a.json'],
  ['/r/a.json', 'is a folder, not a regular file; ignored', 'mv /r/a.json /r/a.json.old'],
  [quoteName('/r/it "s.json'), 'is not complete JSON: damaged', `rm '/r/it "s.json'`],
])('the todo for %s, which %s, is the command %s', (subject, reason, command) => {
  expect(todoOn(subject, reason)).toMatchObject([{ command }]);
});

test.each([
  'name: left out control or invisible characters',
  'name: looks like a path; it is used as a label only',
  'connectedAt: expected a time, got "x"; left out',
])('a note on a registration that is still listed gives no todo: %s', (reason) => {
  expect(todoOn('/r/a.json', reason)).toEqual([]);
});
