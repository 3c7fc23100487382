import { SettingsError } from '../../config/settings.ts';
import { checkDestination } from './ssh-arguments.ts';

/** The words of RELAY_SSH_CMD. @throws {SettingsError} the command cannot reach a relay */
export function relayCommand(command: string): readonly string[] {
  const words = splitCommand(command);
  checkDestination(words);
  return words;
}

/**
 * Splits a command into words as a POSIX shell would, with quotes and backslashes, but evaluates nothing. Refuses what a shell would
 * evaluate (`$`, backticks, `;`, `|`, `&`, `<`, `>`, parentheses, globs, comments, assignments) unless it is quoted, so that no word
 * silently differs from the shell's. Keeps `~`, which ssh expands in file names.
 * @throws {SettingsError} says what to change
 */
export function splitCommand(command: string): readonly string[] {
  if (command.includes('\0')) throw refused('expected text, got a NUL character; remove it');
  const text = command.trim();
  const words: string[] = [];
  /** Undefined between words; `''` is a word. */
  let word: string | undefined;
  /** Whether the word so far has no quoted part. Only then it can be an assignment. */
  let isBare = true;
  const pieces = new RegExp(PIECE);
  for (let at = 0; at < text.length; at = pieces.lastIndex) {
    const piece = pieces.exec(text)?.groups;
    if (piece === undefined) throw unreadable(text, at);
    const { blank, bare, single, double, escaped } = piece;
    if (blank !== undefined) {
      if (word !== undefined) words.push(word);
      word = undefined;
      isBare = true;
    } else if (bare !== undefined) {
      if (word === undefined && bare.startsWith('#')) throw notEvaluated('#', at);
      word = (word ?? '') + bare;
      const [, variable] = /^([A-Za-z_][A-Za-z0-9_]*)=/.exec(word) ?? [];
      if (variable !== undefined && isBare && words.length === 0)
        throw refused(
          `begins with an assignment (${variable}=…), which only a shell makes; write "env ${variable}=… ssh …"`,
        );
    } else if (escaped !== '\n') {
      // A backslash before a line break joins the lines.
      word = (word ?? '') + (single ?? escaped ?? unquoted(double ?? ''));
      isBare = false;
    }
  }
  if (word !== undefined) words.push(word);
  if (!words[0]) throw refused('expected a command such as "ssh user@relay", got nothing');
  return words;
}

const PIECE =
  /(?<blank>[ \t]+)|(?<bare>[^ \t\n\r'"\\$`;|&<>()*?[]+)|'(?<single>[^']*)'|"(?<double>(?:[^"\\$`]|\\[^])*)"|\\(?<escaped>[^])/y;

/** The text of a double-quoted piece, in which a backslash escapes only these characters. */
function unquoted(double: string): string {
  return double.replace(/\\([$`"\\\n])/g, (_, character: string) => (character === '\n' ? '' : character));
}

/** The error for the text at `at`, which is no piece of a word. */
function unreadable(text: string, at: number): Error {
  const character = text.charAt(at);
  if (character === '\\')
    return refused('ends in a backslash, which escapes nothing; remove it, or write \\\\ for a backslash');
  if (character === '\n' || character === '\r')
    return refused('contains a line break outside of quotes, but only one command is run; write it on one line');
  const [open = ''] = character === '"' ? (/^"(?:[^"\\$`]|\\[^])*/.exec(text.slice(at)) ?? []) : [];
  const substitution = /^[$`]/.exec(text.slice(at + open.length))?.[0];
  if (character === "'" || (character === '"' && substitution === undefined))
    return refused(`the ${character} at character ${at + 1} is not closed; add the closing ${character}`);
  return notEvaluated(substitution ?? character, at + open.length);
}

function notEvaluated(character: string, at: number): Error {
  return refused(
    `contains ${character} at character ${at + 1}, which a shell would evaluate, but no shell runs the command; put it in single quotes to keep it as it is, or write out its value`,
  );
}

function refused(problem: string): Error {
  return new SettingsError(`RELAY_SSH_CMD: ${problem}`);
}
