import { expect, test } from 'vitest';

import { EndpointTable } from '../../src/fleet/endpoint-table.ts';
import { askOverviews } from '../../src/fleet/survey.ts';
import { candidate } from './candidates.ts';
import { ManualClock } from './manual-clock.ts';

test('those asked longest ago go first, so that each has its turn where there is not time for all', async () => {
  const table = new EndpointTable();
  const { added } = table.apply(
    'test',
    ['a', 'b', 'c'].map((key) => candidate({ key, url: `http://127.0.0.1/${key}` })),
  );
  const asked: string[] = [];
  for (const [index, record] of added.entries()) record.probedAtMs = [2000, 1000, 3000][index] ?? 0;
  const servers = added.map((record) => [record]);
  await askOverviews(
    {
      servers,
      due: new Set(servers),
      batch: { look: async (record) => void asked.push(record.candidate.key), end: () => {} },
      trustsVersion: true,
      trustsReports: true,
    },
    { table: { takenDirectories: () => () => false }, clock: new ManualClock(), deadlineMs: 1000 },
  );
  expect(asked).toEqual(['b', 'a', 'c']);
});
