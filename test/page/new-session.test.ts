import { expect, test } from 'vitest';

import { openPageStage } from './stage.ts';

test('a message without a session starts one; a repeated request goes there once', async () => {
  await using stage = await openPageStage();
  const there = stage.fake.addSession({ title: 'An older one' });
  const body = { instance: 'one', session: null, message: 'Tidy up', requestId: 'r1' };
  const [first, second] = [await stage.post('send', body), await stage.post('send', body)];
  expect(first).toMatchObject({ status: 200, json: { session: expect.stringMatching(/^ses_/) as string } });
  expect(first.json['session']).not.toBe(there.id);
  expect(second.json['session']).toBe(first.json['session']);
  expect(stage.fake.state.prompts).toHaveLength(1);
  const other = await stage.post('send', { ...body, requestId: 'r2' });
  expect(other.json['session']).not.toBe(first.json['session']);
});
