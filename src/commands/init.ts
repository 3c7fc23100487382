import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { setTimeout as pause } from 'node:timers/promises';

import { reasonOf } from '../base/errors.ts';
import { type Output, ReportedError } from '../base/program.ts';
import { readFlags } from '../config/flags.ts';
import { quote } from '../config/quote.ts';
import { SettingsError } from '../config/settings.ts';
import { type Client, CLIENTS, type Place, type Words } from '../setup/clients.ts';
import { findOnPath, ownCommand } from '../setup/command.ts';
import { readConfigText, rewriteConfig } from '../setup/config-file.ts';
import { difference } from '../setup/difference.ts';
import { editConfig, type Edit, snippet, type EditRequest } from '../setup/edit.ts';
import { DESTINATION, relayCommand } from '../setup/relay.ts';

interface Options {
  readonly yes: boolean;
  readonly print: boolean;
  readonly remove: boolean;
  readonly json: boolean;
  readonly clients: readonly Client[] | undefined;
  readonly relay: string | undefined;
}

/** What is to be done about one client. */
interface Plan {
  readonly client: Client;
  readonly file: string;
  /** Of the whole file; undefined where there is none. */
  readonly before: string | undefined;
  readonly edit: Edit | { readonly kind: 'failed'; readonly reason: string };
}

/** What became of a change that was to be written. */
interface Outcome {
  /** The file as it was, if there was one. */
  readonly backup?: string | undefined;
  readonly reason?: string;
}

/** Tells the MCP clients on this machine about this program, or takes that back. Sets the exit code. */
export async function init(argv: readonly string[], process: NodeJS.Process, { print, tell }: Output): Promise<void> {
  const options = readOptions(argv);
  const place: Place = { home: homedir(), platform: process.platform, env: process.env };
  const warn = (text: string): void => tell(`opencode-mcp init: ${text}\n`);
  const found = CLIENTS.filter((client) => isHere(client, place));
  const chosen = options.clients ?? found;
  const missing = CLIENTS.filter((client) => !found.includes(client));

  if (options.print) {
    const words = await commandWords(options, place, process, warn);
    for (const client of options.clients ?? (missing.length > 0 ? missing : CLIENTS))
      print(byHand(client, place, words));
    return;
  }
  if (chosen.length === 0) {
    throw new ReportedError(
      `no MCP client was found here: ${CLIENTS.map(({ title }) => title).join(', ')}. For another one, or one that keeps its files elsewhere: opencode-mcp init --print`,
    );
  }
  const wanted: EditRequest = options.remove
    ? { kind: 'remove' }
    : { kind: 'add', words: await commandWords(options, place, process, warn) };
  const plans = await Promise.all(chosen.map((client) => planFor(client, place, wanted)));
  const changes = plans.filter(({ edit }) => isChange(edit));
  if (!options.json) {
    for (const plan of plans) print(`${planLines(plan, place, options.remove).join('\n')}\n\n`);
    if (options.clients === undefined && missing.length > 0 && !options.remove)
      print(`Not found here: ${missing.map(({ title }) => title).join(', ')} (opencode-mcp init --print)\n\n`);
  }
  if (plans.some(({ edit }) => edit.kind === 'failed')) process.exitCode = 1;
  const agreed = changes.length > 0 && (options.yes || (!options.json && (await agree(changes.length, process))));
  const done = new Map<Client, Outcome>();
  if (agreed) for (const plan of changes) done.set(plan.client, await write(plan, wanted, process));

  if (options.json) print(`${JSON.stringify({ clients: plans.map((plan) => row(plan, done)) }, null, 2)}\n`);
  else if (changes.length === 0) print('Nothing to change.\n');
  else if (!agreed) print('Nothing was written.\n');
  else for (const plan of changes) print(`${resultLine(plan, done.get(plan.client), place, options.remove)}\n`);
}

function readOptions(argv: readonly string[]): Options {
  const problems: string[] = [];
  const own = {
    yes: 'boolean',
    print: 'boolean',
    remove: 'boolean',
    json: 'boolean',
    client: 'string',
    relay: 'string',
  } as const;
  const { flags } = readFlags(argv, 'opencode-mcp', { flags: own, positionals: false }, problems);
  for (const [name, { written }] of flags)
    if (!(name in own))
      problems.push(`${written}: init takes no settings; put them into the configuration file of opencode-mcp`);
  const isOn = (name: string): boolean => flags.get(name)?.text === 'true';
  const names = flags
    .get('client')
    ?.text.split(',')
    .map((name) => name.trim().toLowerCase());
  const clients = names?.flatMap((name) => {
    const client = CLIENTS.find((one) => one.name === name);
    if (client === undefined)
      problems.push(
        `--client: expected a comma list of ${CLIENTS.map((one) => one.name).join(', ')}, got ${quote(name)}`,
      );
    return client ?? [];
  });
  const relay = flags.get('relay')?.text;
  if (relay !== undefined && !DESTINATION.test(relay)) problems.push(`--relay: expected you@host, got ${quote(relay)}`);
  if (isOn('remove') && (relay !== undefined || isOn('print')))
    problems.push('--remove: expected without --relay and --print');
  if (problems.length > 0) throw new SettingsError(problems.join('\n'));
  return { yes: isOn('yes'), print: isOn('print'), remove: isOn('remove'), json: isOn('json'), clients, relay };
}

function isHere(client: Client, place: Place): boolean {
  const files = client.files(place);
  const folder = client.folder?.(place) ?? dirname(files[0]);
  return [...files, folder].some((path) => existsSync(path)) || client.programs.some((name) => findOnPath(place, name));
}

async function commandWords(
  { relay }: Options,
  place: Place,
  process: NodeJS.Process,
  warn: (text: string) => void,
): Promise<Words> {
  if (relay !== undefined) {
    const ssh = findOnPath(place, 'ssh');
    if (ssh === undefined) throw new ReportedError('--relay: there is no ssh on PATH; install OpenSSH');
    const { words, warnings } = await relayCommand(ssh, relay);
    warnings.forEach(warn);
    return words;
  }
  const { words, warnings } = ownCommand({ execPath: process.execPath, script: process.argv[1] ?? '', place });
  warnings.forEach(warn);
  return words;
}

/** The file that is edited: one that has the entry already, else the first that exists. */
async function planFor(client: Client, place: Place, wanted: EditRequest): Promise<Plan> {
  const files = client.files(place);
  let first: Plan | undefined;
  for (const file of files) {
    const plan = await planForFile(client, file, wanted);
    if (plan === undefined) continue;
    if (plan.edit.kind !== 'add' && !(wanted.kind === 'remove' && plan.edit.kind === 'none')) return plan;
    first ??= plan;
  }
  if (first !== undefined) return first;
  const file = files.at(-1) ?? files[0];
  return { client, file, before: undefined, edit: editConfig(client, '', wanted) };
}

async function planForFile(client: Client, file: string, wanted: EditRequest): Promise<Plan | undefined> {
  try {
    const before = await readConfigText(file);
    return before === undefined ? undefined : { client, file, before, edit: editConfig(client, before, wanted) };
  } catch (error) {
    return { client, file, before: undefined, edit: { kind: 'failed', reason: reasonOf(error) } };
  }
}

function isChange(edit: Plan['edit']): edit is Edit {
  return edit.kind !== 'failed' && edit.kind !== 'none';
}

async function agree(count: number, { stdin, stdout }: NodeJS.Process): Promise<boolean> {
  if (!stdin.isTTY || !stdout.isTTY)
    throw new ReportedError('nothing was written: there is no terminal to ask in; --yes writes');
  const asking = createInterface({ input: stdin, output: stdout });
  const closed = new Promise<string>((resolve) =>
    asking.once('close', () => resolve('\n')).once('SIGINT', () => asking.close()),
  );
  const files = count === 1 ? 'this change' : `these ${count} changes`;
  const answer = await Promise.race([asking.question(`Write ${files}? [y/N] `), closed]);
  asking.close();
  // Ctrl-C and Ctrl-D leave the line as it is.
  if (answer === '\n') stdout.write(answer);
  return /^y(?:es)?$/i.test(answer.trim());
}

/** The file may have changed since it was shown: it is read again. */
async function write({ client, file }: Plan, wanted: EditRequest, process: NodeJS.Process): Promise<Outcome> {
  try {
    const backup = await rewriteConfig(file, {
      pause,
      locks: client.locks === true,
      change: (text) => {
        const edit = editConfig(client, text ?? '', wanted);
        return edit.kind === 'none' ? undefined : edit.text;
      },
    });
    return { backup };
  } catch (error) {
    process.exitCode = 1;
    return { reason: reasonOf(error) };
  }
}

function planLines({ client, file, before, edit }: Plan, place: Place, isRemoval: boolean): readonly string[] {
  const head = `${client.title}: ${shortPath(file, place)}`;
  if (edit.kind === 'failed') return [head, `  left as it is: ${edit.reason}`];
  if (edit.kind === 'none') return [head, isRemoval ? '  has no opencode-mcp' : '  has it already'];
  const lines =
    before === undefined
      ? [
          'new file:',
          ...edit.text
            .trimEnd()
            .split('\n')
            .map((line) => `+ ${line}`),
        ]
      : difference(before, edit.text);
  return [head, ...lines.map((line) => `  ${line}`)];
}

function resultLine({ client }: Plan, outcome: Outcome | undefined, place: Place, isRemoval: boolean): string {
  if (outcome?.reason !== undefined) return `${client.title}: not written: ${outcome.reason}`;
  const copy = outcome?.backup === undefined ? '' : `\n  as it was: ${shortPath(outcome.backup, place)}`;
  return `${client.title}: ${isRemoval ? 'removed' : 'written'}${isRemoval ? '' : `; ${client.next}`}${copy}`;
}

function row({ client, file, edit }: Plan, done: ReadonlyMap<Client, Outcome>): object {
  const outcome = done.get(client);
  const reason = edit.kind === 'failed' ? edit.reason : outcome?.reason;
  return {
    client: client.name,
    file,
    change: edit.kind,
    written: outcome !== undefined && reason === undefined,
    ...(outcome?.backup !== undefined && { backup: outcome.backup }),
    ...(reason !== undefined && { reason }),
  };
}

function byHand(client: Client, place: Place, words: Words): string {
  return `${client.title}, in ${shortPath(client.files(place).at(-1) ?? '', place)}:\n\n${snippet(client, words)}\n`;
}

function shortPath(path: string, { home }: Place): string {
  return path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
}
