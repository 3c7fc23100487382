import { homedir } from 'node:os';

import { loadSettings } from '../config/load.ts';
import { SettingsError } from '../config/settings.ts';
import { readTextFile } from '../config/file/text-file.ts';
import { lineLogger } from '../base/log.ts';
import type { Output } from '../base/program.ts';
import { VERSION } from '../base/version.ts';

/** Reads the command line and runs what it names. Ends by itself once the process has nothing left to do. */
export async function run(process: NodeJS.Process, { print, tell }: Output): Promise<void> {
  const argv = process.argv.slice(2);
  if (argv.includes('--version') || argv.includes('-v')) {
    print(`${VERSION}\n`);
    return;
  }
  if (argv[0] === 'init') {
    if (argv.includes('--help') || argv.includes('-h')) print((await import('../setup/help.ts')).initHelp());
    else await (await import('./init.ts')).init(argv.slice(1), process, { print, tell });
    return;
  }
  if (argv.includes('--help') || argv.includes('-h')) {
    const { helpText } = await import('./help.ts');
    print(helpText());
    return;
  }
  const [first = ''] = argv;
  const command = first.startsWith('-') || first === '' ? 'serve' : first;
  if (command !== 'serve' && command !== 'list' && command !== 'node') {
    throw new SettingsError(
      `Unknown command ${JSON.stringify(first)}: expected none (the MCP server), init, list or node; see --help`,
    );
  }
  const { settings, warnings } = loadSettings({
    argv: command === first ? argv.slice(1) : argv,
    env: process.env,
    home: homedir(),
    cwd: process.cwd(),
    readFile: readTextFile,
  });
  const logger = lineLogger(settings.logLevel, tell);
  for (const warning of warnings) logger.log('warn', warning);
  if (command === 'list') await (await import('./list.ts')).list(settings, logger, { process, print });
  else if (command === 'node') await (await import('./node.ts')).node(settings, logger, process);
  else await (await import('./serve.ts')).serve(settings, logger, process);
}
