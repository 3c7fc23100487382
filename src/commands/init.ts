import { homedir } from 'node:os';
import { createInterface } from 'node:readline/promises';

import { type Output, ReportedError } from '../base/program.ts';
import { readFlags } from '../config/flags.ts';
import { quote } from '../config/quote.ts';
import { SettingsError } from '../config/settings.ts';
import { type Client, CLIENTS, type Place, type Words } from '../setup/clients.ts';
import { findOnPath, ownCommand } from '../setup/command.ts';
import type { EditRequest } from '../setup/edit.ts';
import { carryOut, isChange, isHere, type Outcome, planFor } from '../setup/plan.ts';
import { DESTINATION, remoteServerCommand } from '../setup/relay.ts';
import { byHand, planLines, planRow, resultLine } from '../setup/report.ts';

interface Options {
  readonly yes: boolean;
  readonly print: boolean;
  readonly remove: boolean;
  readonly json: boolean;
  readonly clients: readonly Client[] | undefined;
  readonly relay: string | undefined;
}

/** Adds this program to the MCP clients on this machine, or removes it. Sets the exit code. */
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
      `no MCP client was found here (known: ${titles(CLIENTS)}). For another one, or one with its files elsewhere: opencode-mcp init --print`,
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
      print(`Not found here: ${titles(missing)} (opencode-mcp init --print)\n\n`);
  }
  const agreed = changes.length > 0 && (options.yes || (!options.json && (await agree(changes.length, process))));
  const done = new Map<Client, Outcome>();
  if (agreed) for (const plan of changes) done.set(plan.client, await carryOut(plan, wanted));
  const failed = [
    ...plans.map(({ edit }) => edit.kind === 'failed'),
    ...[...done.values()].map(({ reason }) => reason !== undefined),
  ];
  if (failed.includes(true)) process.exitCode = 1;

  if (options.json) print(`${JSON.stringify({ clients: plans.map((plan) => planRow(plan, done)) }, null, 2)}\n`);
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
    client: 'list',
    relay: 'string',
  } as const;
  const { flags, positionals } = readFlags(argv, 'opencode-mcp', { flags: own, positionals: true }, problems);
  for (const [name, { written }] of flags)
    if (!(name in own))
      problems.push(`${written}: init takes no settings; put them into the configuration file of opencode-mcp`);
  const isOn = (name: string): boolean => flags.get(name)?.text === 'true';
  // `--print cursor` reads as if it took the name.
  if (!isOn('print')) problems.push(...positionals.map((text) => `unexpected argument ${quote(text)}; see --help`));
  const given = [flags.get('client')?.text, ...positionals].filter((text) => text !== undefined);
  const names = given.flatMap((text) => text.split(',')).map((name) => name.trim().toLowerCase());
  const clients = names.flatMap((name) => {
    const client = CLIENTS.find((one) => one.name === name);
    if (client === undefined)
      problems.push(`expected some of ${CLIENTS.map((one) => one.name).join(', ')}, got ${quote(name)}`);
    return client ?? [];
  });
  const relay = flags.get('relay')?.text;
  if (relay !== undefined && !DESTINATION.test(relay)) problems.push(`--relay: expected you@host, got ${quote(relay)}`);
  if (isOn('remove') && (relay !== undefined || isOn('print')))
    problems.push('--remove: expected without --relay and --print');
  if (problems.length > 0) throw new SettingsError(problems.join('\n'));
  return {
    yes: isOn('yes'),
    print: isOn('print'),
    remove: isOn('remove'),
    json: isOn('json'),
    clients: names.length > 0 ? clients : undefined,
    relay,
  };
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
    const { words, warnings } = await remoteServerCommand(ssh, relay);
    warnings.forEach(warn);
    return words;
  }
  const { words, warnings } = ownCommand({ execPath: process.execPath, script: process.argv[1] ?? '', place });
  warnings.forEach(warn);
  return words;
}

async function agree(count: number, { stdin, stdout }: NodeJS.Process): Promise<boolean> {
  if (!stdin.isTTY || !stdout.isTTY)
    throw new ReportedError('nothing was written: there is no terminal to ask in; --yes writes without asking');
  const asking = createInterface({ input: stdin, output: stdout });
  const closed = new Promise<string>((resolve) =>
    asking.once('close', () => resolve('\n')).once('SIGINT', () => asking.close()),
  );
  const files = count === 1 ? 'this change' : `these ${count} changes`;
  const answer = await Promise.race([asking.question(`Write ${files}? [y/N] `), closed]);
  asking.close();
  // Ctrl-C and Ctrl-D do not end the line.
  if (answer === '\n') stdout.write(answer);
  return /^y(?:es)?$/i.test(answer.trim());
}

function titles(clients: readonly Client[]): string {
  return clients.map(({ title }) => title).join(', ');
}
