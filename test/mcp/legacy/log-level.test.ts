import { expect, test } from 'vitest';

import { silentLogger } from '../../../src/base/log.ts';
import type { Core } from '../../../src/mcp/core.ts';
import { ClientLog } from '../../../src/mcp/features/client-log.ts';
import { LegacyServer } from '../../../src/mcp/legacy/legacy-server.ts';
import { ManualClock } from '../../fleet/manual-clock.ts';
import { HANDSHAKE } from '../raw-server.ts';

test('a log level that the client sets before it is initialized stays', async () => {
  const lines: unknown[] = [];
  const answers: unknown[] = [];
  const log = new ClientLog(async (_, { data }) => void lines.push((data as { message: string }).message));
  const core: Partial<Core> = {
    info: { name: 'opencode-mcp', version: '1' },
    instructions: '',
    clock: new ManualClock(),
    logger: silentLogger,
    methods: new Map(),
    news: new Set(),
    log,
    send: async ({ id }) => void answers.push(id),
    start: () => {},
  };
  const server = new LegacyServer(core as Core);
  await server.connect();
  const [initialize, initialized] = HANDSHAKE;
  server.take(initialize);
  server.take({ jsonrpc: '2.0', id: 1, method: 'logging/setLevel', params: { level: 'error' } });
  await expect.poll(() => answers).toEqual([0, 1]);
  server.take(initialized);
  server.take({ jsonrpc: '2.0', id: 2, method: 'ping' });
  await expect.poll(() => answers).toEqual([0, 1, 2]);
  const logger = log.beside(silentLogger);
  logger.log('warn', 'too low');
  logger.log('error', 'wanted');
  expect(lines).toEqual(['wanted']);
  await server.close();
});
