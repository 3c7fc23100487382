import { expect, test } from 'vitest';

import { silentLogger } from '../../../src/base/log.ts';
import type { Core, Method } from '../../../src/mcp/core.ts';
import { ClientLog } from '../../../src/mcp/features/client-log.ts';
import { LegacyServer } from '../../../src/mcp/legacy/legacy-server.ts';
import { ManualClock } from '../../fleet/manual-clock.ts';
import { HANDSHAKE } from '../raw-server.ts';

/** A legacy server with its log and the ids of its answers. */
async function startLegacyServer(methods: Core['methods'] = new Map()) {
  const lines: unknown[] = [];
  const answers: unknown[] = [];
  const log = new ClientLog(async (_, { data }) => void lines.push((data as { message: string }).message));
  const core: Partial<Core> = {
    info: { name: 'opencode-mcp', version: '1' },
    instructions: '',
    clock: new ManualClock(),
    logger: silentLogger,
    mayChange: true,
    methods,
    news: new Set(),
    log,
    send: async ({ id }) => void answers.push(id),
    start: () => {},
  };
  const server = new LegacyServer(core as Core);
  await server.connect();
  return { server, log, lines, answers };
}

test('a log level that the client sets before `initialized` stays in force', async () => {
  const { server, log, lines, answers } = await startLegacyServer();
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

test('a client without form elicitation is not asked after a client with it initialized before', async () => {
  const canAsk: boolean[] = [];
  const call: Method = async (_, { askPerson }) => {
    canAsk.push(askPerson !== undefined);
    return {};
  };
  const { server, answers } = await startLegacyServer(new Map([['tools/call', call]]));
  const [initialize, initialized] = HANDSHAKE;
  for (const [id, capabilities] of [{ elicitation: { form: {} } }, {}].entries()) {
    server.take({ ...initialize, id: 2 * id, params: { ...initialize.params, capabilities } });
    server.take(initialized);
    await expect.poll(() => answers).toContain(2 * id);
    server.take({ jsonrpc: '2.0', id: 2 * id + 1, method: 'tools/call', params: { name: 'send' } });
    await expect.poll(() => answers).toContain(2 * id + 1);
  }
  expect(canAsk).toEqual([true, false]);
  await server.close();
});
