import { expect, test } from 'vitest';

import { SessionFamily } from '../../src/turns/waiting.ts';
import { FakeApi, SESSION } from './fake-api.ts';

test('a session family remembers a limited number of sessions, and requests each further session whenever it is needed', async () => {
  const api = new FakeApi();
  const requestedIds: string[] = [];
  api.session = async (id) => {
    requestedIds.push(id);
    return id.startsWith('ses_child') ? { ...SESSION, id, parentID: SESSION.id } : undefined;
  };
  const family = new SessionFamily(SESSION.id);
  for (let index = 0; index < 3_000; index += 1) {
    expect(await family.includes(`ses_other${index}`, api)).toBe(false);
    const info = { ...SESSION, id: `ses_child${index}`, parentID: SESSION.id };
    family.apply({ type: 'session.created', properties: { sessionID: info.id, info } });
  }
  requestedIds.length = 0;
  for (const id of ['ses_other0', 'ses_child0']) await family.includes(id, api);
  expect(requestedIds).toEqual([]);
  expect(family.has('ses_child2999')).toBe(false);
  expect(await family.includes('ses_child2999', api)).toBe(true);
  expect(await family.includes('ses_other2999', api)).toBe(false);
  expect(requestedIds).toEqual(['ses_child2999', 'ses_other2999']);
});
