import { SettingsError } from '../../config/settings.ts';
import { checkDestination } from './ssh-arguments.ts';

/**
 * Splits a command into words as a POSIX shell would, with quotes and backslashes, but evaluates nothing. Refuses what a shell would
 * evaluate (`$`, backticks, `;`, `|`, `&`, `<`, `>`, parentheses, globs, comments, assignments) unless it is quoted, so that no word
 * silently differs from the shell's. Keeps `~`, which ssh expands in file names.
 * @throws {SettingsError} names `setting` and says what to change
 */
export function splitCommand(command: string, setting: string): readonly [string, ...string[]] {
  const [first, ...rest] = new Splitter(command.trim(), setting).words();
  // `""` is a word, but not a program.
  if (first === undefined || first === '')
    throw new SettingsError(`${setting}: expected a command such as "ssh user@relay", got nothing`);
  return [first, ...rest];
}

/** The words of RELAY_SSH_CMD. @throws {SettingsError} the command cannot reach a relay */
export function relayCommand(command: string): readonly string[] {
  const words = splitCommand(command, 'RELAY_SSH_CMD');
  checkDestination(words, 'RELAY_SSH_CMD');
  return words;
}

const BLANK = new Set([' ', '\t']);
const SUBSTITUTION = new Set(['$', '`']);
const OPERATORS = new Set([';', '|', '&', '<', '>', '(', ')']);
const GLOBS = new Set(['*', '?', '[']);
/** Between double quotes a backslash before any other character is a backslash. */
const ESCAPED_IN_DOUBLE_QUOTES = new Set(['$', '`', '"', '\\']);

class Splitter {
  readonly #text: string;
  readonly #setting: string;
  readonly #words: string[] = [];
  #at = 0;
  /** Undefined between words; `''` is a word. */
  #word: string | undefined;
  /** Whether the word so far has no quoted part. Only then it can be an assignment. */
  #isBare = true;

  constructor(text: string, setting: string) {
    this.#text = text;
    this.#setting = setting;
  }

  words(): readonly string[] {
    if (this.#text.includes('\0')) throw this.#error('expected text, got a NUL character; remove it');
    for (let character = this.#next(); character !== undefined; character = this.#next()) this.#take(character);
    this.#endWord();
    return this.#words;
  }

  #take(character: string): void {
    if (BLANK.has(character)) this.#endWord();
    else if (character === "'") this.#singleQuoted();
    else if (character === '"') this.#doubleQuoted();
    else if (character === '\\') this.#escaped();
    else this.#bare(character);
  }

  #bare(character: string): void {
    if (SUBSTITUTION.has(character) || OPERATORS.has(character) || GLOBS.has(character))
      throw this.#notEvaluated(character);
    if (character === '#' && this.#word === undefined) throw this.#notEvaluated(character);
    if (character === '\n' || character === '\r') {
      throw this.#error('contains a line break outside of quotes, but only one command is run; write it on one line');
    }
    if (
      character === '=' &&
      this.#words.length === 0 &&
      this.#isBare &&
      /^[A-Za-z_][A-Za-z0-9_]*$/.test(this.#word ?? '')
    ) {
      throw this.#error(
        `begins with an assignment (${this.#word}=…), which only a shell makes; write "env ${this.#word}=… ssh …"`,
      );
    }
    this.#add(character);
  }

  #singleQuoted(): void {
    const end = this.#text.indexOf("'", this.#at);
    if (end === -1) throw this.#unbalanced("'");
    this.#add(this.#text.slice(this.#at, end));
    this.#isBare = false;
    this.#at = end + 1;
  }

  #doubleQuoted(): void {
    this.#add('');
    this.#isBare = false;
    const start = this.#at;
    for (let character = this.#next(); character !== '"'; character = this.#next()) {
      if (character === undefined) {
        this.#at = start;
        throw this.#unbalanced('"');
      }
      if (SUBSTITUTION.has(character)) throw this.#notEvaluated(character);
      if (character !== '\\') {
        this.#add(character);
        continue;
      }
      const following = this.#next();
      if (following === undefined) {
        this.#at = start;
        throw this.#unbalanced('"');
      }
      if (following === '\n') continue;
      this.#add(ESCAPED_IN_DOUBLE_QUOTES.has(following) ? following : `\\${following}`);
    }
  }

  #escaped(): void {
    const following = this.#next();
    if (following === undefined) {
      throw this.#error('ends in a backslash, which escapes nothing; remove it, or write \\\\ for a backslash');
    }
    // A backslash before a line break joins the lines.
    if (following === '\n') return;
    this.#add(following);
    this.#isBare = false;
  }

  #next(): string | undefined {
    const code = this.#text.codePointAt(this.#at);
    if (code === undefined) return undefined;
    const character = String.fromCodePoint(code);
    this.#at += character.length;
    return character;
  }

  #add(text: string): void {
    this.#word = (this.#word ?? '') + text;
  }

  #endWord(): void {
    if (this.#word !== undefined) this.#words.push(this.#word);
    this.#word = undefined;
    this.#isBare = true;
  }

  #notEvaluated(character: string): Error {
    return this.#error(
      `contains ${character} at character ${this.#at}, which a shell would evaluate, but no shell runs the command; put it in single quotes to keep it as it is, or write out its value`,
    );
  }

  #unbalanced(quote: string): Error {
    return this.#error(`the ${quote} at character ${this.#at} is not closed; add the closing ${quote}`);
  }

  #error(problem: string): Error {
    return new SettingsError(`${this.#setting}: ${problem}`);
  }
}
