import { lineLogger } from './base/log.ts';
import { runProgram } from './base/program.ts';
import { ownSettings } from './commands/own-settings.ts';
import { serve } from './commands/serve.ts';

await runProgram('opencode-mcp', process, async ({ tell }) => {
  const argv = process.argv.slice(2);
  const { settings, warnings } = await ownSettings(argv[0] === 'serve' ? argv.slice(1) : argv, process);
  const logger = lineLogger(settings.logLevel, tell);
  for (const warning of warnings) logger.log('warn', warning);
  await serve(settings, logger, process);
});
