import type { Settings } from '../config/settings.ts';
import type { Logger } from '../base/log.ts';
import { instances } from '../operations/listing/instances.ts';
import type { Output } from '../base/program.ts';
import { startRuntime } from './start-runtime.ts';

/** Prints what the `instances` tool tells, and ends. */
export async function list(
  settings: Settings,
  logger: Logger,
  { process, print }: Pick<Output, 'print'> & { readonly process: NodeJS.Process },
): Promise<void> {
  const { runtime, close } = startRuntime(settings, logger);
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  try {
    const call = { signal: interrupted.signal, deadlineMs: Number.POSITIVE_INFINITY, onProgress: () => {} };
    const { text } = await instances(runtime, { offset: 0, limit: Number.MAX_SAFE_INTEGER }, call);
    print(`${text}\n`);
  } finally {
    await close();
  }
}
