import type { CallRecord } from '../operations/call-record.ts';
import { systemClock } from '../base/clock.ts';
import type { Settings } from '../config/settings.ts';
import type { Logger } from '../base/log.ts';
import { McpServer } from '../mcp/server.ts';
import { listedTools } from '../mcp/tools/listed-tools.ts';
import { VERSION } from '../base/version.ts';
import type { StartedRuntime } from './terminal/start-runtime.ts';

/** Every part ends within a second of the signal or the client's end; the rest is cut off. */
const SHUTDOWN_LIMIT_MS = 800;

/** Serves MCP on standard input and output until the client ends it or a signal comes. */
export async function serve(settings: Settings, logger: Logger, process: NodeJS.Process): Promise<void> {
  // An unknown source must be reported before a client is served. By default none is named, and loading the sources can wait.
  if (settings.sources !== 'all') {
    const { createSources, systemDependencies } = await import('../discovery/sources.ts');
    createSources(settings, systemDependencies(logger));
  }
  let started: Promise<StartedRuntime> | undefined;
  let record: Promise<CallRecord> | undefined;
  const server = new McpServer({
    version: VERSION,
    tools: await listedTools(settings.toolsets, settings.readOnly),
    stateDir: settings.stateDir,
    sendTimeoutMs: settings.sendTimeoutMs,
    clock: systemClock,
    logger,
    record: (entry) => {
      record ??= import('../operations/call-record.ts').then(
        (module) => new module.CallRecord(settings.stateDir, systemClock, logger),
      );
      void record.then((opened) => opened.add(entry));
    },
    loadRuntime: async (log, onChange) => {
      started ??= import('./terminal/start-runtime.ts').then(({ startRuntime }) =>
        startRuntime(settings, log, { onChange }),
      );
      return (await started).runtime;
    },
  });

  let ending = false;
  const shutdown = (reason: string): void => {
    if (ending) return;
    ending = true;
    logger.log('debug', `shutting down: ${reason}`);
    const cutOff = setTimeout(() => process.exit(0), SHUTDOWN_LIMIT_MS);
    void Promise.allSettled([
      server.close(),
      started?.then(({ close }) => close()),
      record?.then((opened) => opened.close()),
    ]).then(() => {
      clearTimeout(cutOff);
      process.exit(0);
    });
  };
  // The end of standard input alone does not end the process.
  process.stdin.once('end', () => shutdown('standard input ended'));
  process.stdin.once('close', () => shutdown('standard input closed'));
  process.stdin.on('error', () => shutdown('standard input failed'));
  // Each message waits for a slow client with a listener of its own.
  process.stdout.setMaxListeners(0);
  // `on`, not `once`: further writes during the shutdown fail too.
  process.stdout.on('error', () => shutdown('standard output failed'));
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => shutdown(signal));
  server.connectStdio(() => shutdown('the connection was closed'));
}
