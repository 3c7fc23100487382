import { expect, test } from 'vitest';

import type { Shell } from '../../src/commands/terminal/shell.ts';
import { endpointOf } from '../../src/commands/terminal/target.ts';
import { UnreachableError } from '../../src/fleet/fleet.ts';
import type { Connected } from '../../src/operations/runtime.ts';

test('the terminal and the page of opencode get advice with commands, not tools', async () => {
  const fleet = {
    reachAnother: () => Promise.reject(new UnreachableError(({ look }) => `a is gone; ${look} to see what there is.`)),
  };
  const shell = { runtime: () => ({ fleet }), signal: new AbortController().signal } as unknown as Shell;
  const endpoint = endpointOf(shell, { connection: { endpoint: { url: 'http://127.0.0.1:1' } } } as Connected);
  const first = await endpoint();
  if (!('failed' in first)) throw new Error('Expected an endpoint, got a refusal');
  first.failed?.();
  expect(await endpoint()).toEqual({ status: 503, text: 'a is gone; run opencode-mcp list to see what there is.' });
});
