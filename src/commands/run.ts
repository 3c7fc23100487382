import { SettingsError } from '../config/settings.ts';
import { lineLogger } from '../base/log.ts';
import type { Output } from '../base/program.ts';
import { VERSION } from '../base/version.ts';
import { ownSettings } from '../config/own-settings.ts';
import type { ShellCommand } from './terminal/shell.ts';

/** Commands that work on instances. */
const SHELL_COMMANDS: ReadonlyMap<string, () => Promise<ShellCommand>> = new Map([
  ['list', async () => (await import('./list.ts')).LIST],
  ['ls', async () => (await import('./list.ts')).LIST],
  ['send', async () => (await import('./send.ts')).SEND],
  ['read', async () => (await import('./read.ts')).READ],
  ['wait', async () => (await import('./wait.ts')).WAIT],
  ['respond', async () => (await import('./respond.ts')).RESPOND],
  ['abort', async () => (await import('./abort.ts')).ABORT],
  ['sessions', async () => (await import('./sessions.ts')).SESSIONS],
  ['attach', async () => (await import('./attach.ts')).ATTACH],
  ['open', async () => (await import('./open.ts')).OPEN],
  ['dashboard', async () => (await import('./dashboard.ts')).DASHBOARD],
]);

type OtherCommand = (argv: readonly string[], process: NodeJS.Process, output: Output) => Promise<void> | void;

/** Commands that read their own arguments and settings. */
const OTHER_COMMANDS: ReadonlyMap<string, () => Promise<OtherCommand>> = new Map([
  ['init', async () => (await import('./init.ts')).init],
  ['completion', async () => (await import('./completion/complete.ts')).printScript],
  ['doctor', async () => (await import('./doctor.ts')).doctor],
  ['notify', async () => (await import('./notify/notify.ts')).notify],
]);

const NODE_ARGUMENTS = { flags: { revoke: 'boolean', allow: 'boolean' }, positionals: false } as const;

/** Runs the command that the command line names. */
export async function run(process: NodeJS.Process, output: Output): Promise<void> {
  const argv = process.argv.slice(2);
  const [first = ''] = argv;
  if (first === '__complete') {
    await (await import('./completion/complete.ts')).complete(argv.slice(1), output);
    return;
  }
  // Words after `--` are a message.
  const flags = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
  const isCommand = first !== '' && !first.startsWith('-');
  if (!isCommand && (flags.includes('--version') || flags.includes('-v'))) {
    output.print(`${VERSION}\n`);
    return;
  }
  const asksForHelp = flags.includes('--help') || flags.includes('-h');
  if (first === 'help' || asksForHelp) {
    output.print(await help(first === 'help' ? argv[1] : isCommand ? first : undefined));
    return;
  }
  const other = await OTHER_COMMANDS.get(first)?.();
  if (other !== undefined) {
    await other(argv.slice(1), process, output);
    return;
  }
  const command = await SHELL_COMMANDS.get(first)?.();
  if (command !== undefined) {
    const { runShellCommand } = await import('./terminal/shell.ts');
    await runShellCommand({ name: first, command, argv: argv.slice(1) }, process, output);
    return;
  }
  if (isCommand && !['serve', 'node', 'watch'].includes(first)) throw await unknownCommand(first);
  const {
    settings,
    warnings,
    flags: given,
  } = await ownSettings(isCommand ? argv.slice(1) : argv, process, first === 'node' ? NODE_ARGUMENTS : undefined);
  // A person, not an MCP client: without help the program would seem to hang.
  if (!isCommand && process.stdin.isTTY) {
    output.print(await help(undefined));
    return;
  }
  const logger = lineLogger(settings.logLevel, output.tell);
  for (const warning of warnings) logger.log('warn', warning);
  if (given.has('revoke') || given.has('allow'))
    await (await import('./node/revoke.ts')).revokeNode(settings, given, output);
  else if (first === 'node') await (await import('./node.ts')).node(settings, logger, process);
  else if (first === 'watch') await (await import('./notify/watch.ts')).watch(settings, logger, process);
  else await (await import('./serve.ts')).serve(settings, logger, process);
}

async function help(topic: string | undefined): Promise<string> {
  if (topic === 'init') return (await import('../setup/help.ts')).initHelp();
  const { helpText } = await import('./terminal/help.ts');
  const text = helpText(topic === 'ls' ? 'list' : topic);
  if (text === undefined) throw await unknownCommand(topic ?? '');
  return text;
}

async function unknownCommand(name: string): Promise<SettingsError> {
  const [{ HELP_TOPICS }, { didYouMean }, { quote }] = await Promise.all([
    import('./terminal/help.ts'),
    import('../config/file/nearest.ts'),
    import('../config/quote.ts'),
  ]);
  return new SettingsError(
    `unknown command ${quote(name)}, see opencode-mcp help${didYouMean(name, ['init', ...HELP_TOPICS])}`,
  );
}
