import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { silentLogger } from '../../../src/base/log.ts';
import { createServiceSource } from '../../../src/discovery/service/service.ts';
import { type Exchange, exchange, RequestError } from '../../../src/http/exchange.ts';
import type { Candidate } from '../../../src/model/candidate.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { startPreview } from '../../rig/opencode/opencode-preview.ts';
import { within } from '../../rig/wait.ts';

const never = new AbortController().signal;

async function ask({ endpoint, credential }: Candidate): Promise<Exchange> {
  const password = credential?.password.kind === 'value' ? credential.password.value : '';
  const connection = { endpoint, credential: { username: 'opencode', password } };
  return exchange(connection, '/api/health', {}, { timeoutMs: 30_000, maxBytes: 10_000 });
}

describe.skipIf(isMissing(PREVIEW_OPENCODE))('the source `service`, on the preview of OpenCode 2', () => {
  test('finds a service again after a restart and a kill, and sends nothing to another process on its port', async () => {
    await using preview = await startPreview({ registered: 'service' });
    const dependencies = { logger: silentLogger, uid: process.getuid?.(), hostname: 'here' };
    const source = createServiceSource({ directory: preview.stateDir }, dependencies);
    onTestFinished(() => source.close());
    const hints = source.changes(never)[Symbol.asyncIterator]();

    /** Scans at every hint until a scan finds the service of that process. */
    async function findService(pid: number): Promise<Candidate> {
      for (;;) {
        const hint = await hints.next();
        if (hint.done === true) throw new Error('Expected a hint, got the end');
        const { candidates, notes } = await source.scan(never);
        expect(notes).toEqual([]);
        const [found] = candidates;
        if (found?.endpoint.holderPid === pid) return found;
      }
    }

    const first = await within(findService(preview.pid), 'the service');
    expect(first).toMatchObject({
      key: 'server',
      endpoint: { url: preview.url },
      claims: { service: { version: preview.version, isPreview: true } },
      trust: { level: 'trusted' },
    });
    expect(await ask(first)).toMatchObject({ status: 200, text: '{"healthy":true}' });

    await preview.restart();
    const second = await within(findService(preview.pid), 'the service after its restart');
    expect(second.key).toBe(first.key);
    expect(second.endpoint.holderPid).not.toBe(first.endpoint.holderPid);
    expect(await ask(second)).toMatchObject({ status: 200 });

    await preview.kill9();
    const [left] = (await source.scan(never)).candidates;
    expect(left).toEqual(second);
    // The message varies: a kept connection may not be closed yet, and another suite may hold port 4096 by now.
    await expect(ask(second)).rejects.toThrow(RequestError);

    // The stale file names a port that anyone may take.
    let bytes = 0;
    const other = createServer((socket) => {
      socket.on('error', () => {}).on('data', (data) => (bytes += data.length));
    });
    onTestFinished(() => void other.close());
    other.listen(preview.port, '127.0.0.1');
    // Listening fails if another suite has taken the port.
    await once(other, 'listening').catch(() => {});
    await expect(ask(second)).rejects.toThrow(/nothing was sent: process \d+, which the service's file names/);
    expect(bytes).toBe(0);
  });
});
