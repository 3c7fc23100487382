import type { Settings } from '../config/settings.ts';
import type { Logger } from '../log.ts';
import { instances } from '../operations/instances.ts';
import { safeToShow } from '../plain-text.ts';
import { startRuntime } from './start-runtime.ts';

/** Prints what the `instances` tool tells, and ends. */
export async function list(settings: Settings, logger: Logger, process: NodeJS.Process): Promise<void> {
  const { runtime, close } = startRuntime(settings, logger);
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  try {
    const call = { signal: interrupted.signal, deadlineMs: Number.POSITIVE_INFINITY, onProgress: () => {} };
    const { text } = await instances(runtime, { offset: 0, limit: Number.MAX_SAFE_INTEGER }, call);
    process.stdout.write(`${safeToShow(text)}\n`);
  } finally {
    await close();
  }
}
