import { type FakeOptions, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir } from '../rig/temp.ts';

export type WorkerScene = Awaited<ReturnType<typeof openWorker>>;

/** A registry with one fake opencode, and the arguments of a server that finds it. */
export async function openWorker({ name = 'worker', ...options }: FakeOptions & { readonly name?: string } = {}) {
  const temp = tempDir('opencode-mcp-worker');
  const registry = await openRegistry(`${temp.path}/registry`);
  const worker = await startFakeOpencode(options);
  await registry.add({ name, port: worker.port, cwd: worker.directory });
  return {
    temp,
    registry,
    worker,
    args: ['--registry-dir', registry.path, '--health-timeout-ms', '15000'],
    async close() {
      await worker.close();
      await temp.close();
    },
  };
}
