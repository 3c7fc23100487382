import { expect, test } from 'vitest';

import { inPageWords } from '../../src/page/page-words.ts';
import { openPageStage } from './stage.ts';

test.each([
  [
    'See that opencode still runs there, then call refresh_instances.',
    'See that opencode still runs there; the list shows when it is back.',
  ],
  ['Call refresh_instances and choose again: nothing was sent.', 'Choose again in the list: nothing was sent.'],
  ['Call instances to see how it is, then call again.', 'Look in the list how it is, then try again.'],
  ['It says "call refresh_instances"; nothing was sent.', 'It says "call refresh_instances"; nothing was sent.'],
])('%s', (said, words) => expect(inPageWords(said)).toBe(words));

test('an error for a session of an ended opencode advises no tool call', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession();
  await stage.fake.close();
  const { status, json } = await stage.call(`/opencode-mcp/page/v1/session?instance=one&session=${session.id}`);
  expect(status).toBe(503);
  expect(json['error']).toContain('; the list shows when it is back.');
});
