import { expect, test } from 'vitest';

import { openPageStage } from './stage.ts';

test('an error for a session of an ended opencode advises no tool call', async () => {
  await using stage = await openPageStage();
  const session = stage.fake.addSession();
  await stage.fake.close();
  const { status, json } = await stage.call(`/opencode-mcp/page/v1/session?instance=one&session=${session.id}`);
  expect(status).toBe(503);
  expect(json['error']).toContain('Check that opencode still runs there, then look in the list.');
});
