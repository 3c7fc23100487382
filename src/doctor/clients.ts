import { existsSync } from 'node:fs';
import { isAbsolute } from 'node:path';

import { reasonOf } from '../base/errors.ts';
import { quoteName, shellWord, singleLine } from '../base/plain-text.ts';
import { type Client, CLIENTS, type Place } from '../setup/clients.ts';
import { findOnPath, wordsAfterOwn } from '../setup/command.ts';
import { readConfigText } from '../setup/config-file.ts';
import { ownWords } from '../setup/edit.ts';
import { isHere } from '../setup/plan.ts';
import { adviceIn, check, type Check } from './report.ts';

const MAX_COMMAND_CHARS = 200;

/** Checks whether the MCP clients of this machine start this program. */
export async function clientChecks(place: Place): Promise<readonly Check[]> {
  const here = CLIENTS.filter((client) => isHere(client, place));
  if (here.length === 0)
    return [check('-', 'MCP clients', `found none of ${CLIENTS.map(({ title }) => title).join(', ')}`)];
  const found = await Promise.all(here.map((client) => clientCheck(client, place)));
  if (found.some(({ verdict }) => verdict !== '-')) return found;
  const advice = { text: 'add this program to them', command: 'opencode-mcp init' };
  return [...found, check('warn', 'MCP clients', 'none of these clients starts opencode-mcp', { advice })];
}

async function clientCheck(client: Client, place: Place): Promise<Check> {
  const { title, name } = client;
  const again = `opencode-mcp init --client ${name}`;
  for (const file of client.files(place)) {
    try {
      const text = await readConfigText(file);
      const words = text === undefined ? undefined : ownWords(client, text);
      if (words !== undefined) return entryCheck(client, words, place);
    } catch (error) {
      const reason = reasonOf(error);
      const what = adviceIn(reason)?.text ?? 'correct it';
      return check('broken', title, `cannot read ${quoteName(file)}: ${reason}`, {
        advice: { text: `${what}: ${shellWord(file)} (${reason.split('; ', 1)[0]}); then:`, command: again },
      });
    }
  }
  return check('-', title, `not set up; ${again}`);
}

/** Checks that the programs of the entry's command exist. */
function entryCheck({ title, name }: Client, words: readonly string[], place: Place): Check {
  const shown = singleLine(words.map(shellWord).join(' '), MAX_COMMAND_CHARS);
  const own = wordsAfterOwn(words);
  // By ssh or in WSL, the rest of the command is for another system.
  const local = own === undefined ? words.slice(0, 1) : words.slice(0, words.length - own.length);
  const gone = local.find((word) => (isAbsolute(word) ? !existsSync(word) : findOnPath(place, word) === undefined));
  if (gone === undefined) return check('ok', title, `starts ${shown}`);
  return check('broken', title, `starts ${shown}, but ${quoteName(gone)} does not exist`, {
    advice: { text: 'replace it by the paths of this program', command: `opencode-mcp init --client ${name}` },
  });
}
