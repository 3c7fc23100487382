import { readRegistration, type Registration } from '../../discovery/registry/registration.ts';
import { singleLine } from '../../base/plain-text.ts';
import { MAX_SURVEYED } from './relay-survey-program.ts';

/** `mine`: of the user who looked. A number: another's uid. Undefined: another's, not looked up. */
export type Owner = 'mine' | number | undefined;

/** Bytes of a file or of its name as the survey told them, one character each; only sent back and compared. */
export type Bytes = string;

export interface SurveyedRegistration {
  /** Without `.json`. */
  readonly name: string;
  readonly nameBytes: Bytes;
  readonly owner: Owner;
  /** Each line behind `> `, as it is compared before a removal. */
  readonly content: Bytes;
  /** Undefined where the file says something else, and then `problem` says what. */
  readonly registration?: Registration;
  readonly problem?: string;
}

export interface SurveyedClaim {
  readonly mine: boolean;
  /** `elsewhere`: by a process of another machine. `unknown`: another user's, or no claim that can be read. */
  readonly holder: 'alive' | 'dead' | 'elsewhere' | 'unknown';
  readonly id: string;
  readonly pid?: number;
  readonly host: string;
  readonly line: Bytes;
}

export interface SurveyedPassword {
  readonly id: string;
  readonly mine: boolean;
  /** Older than an hour. */
  readonly old: boolean;
}

/** A registration that was not read. */
export interface OddFile {
  readonly kind: 'symlink' | 'special' | 'large' | 'unreadable' | 'line-break' | 'not-utf-8';
  readonly fileName: string;
}

/** What lies in one registry directory, as a process of its machine sees it. Names are as they are: clean them before they are shown. */
export interface RegistrySurvey {
  readonly host: string;
  readonly uid: number | undefined;
  readonly directory: string;
  readonly missing: boolean;
  /** It is this user's, and nobody else can write in it: else nothing is removed. */
  readonly isOursAlone: boolean;
  /** Undefined where it is missing. */
  readonly ownerUid: number | undefined;
  readonly registrations: readonly SurveyedRegistration[];
  readonly odd: readonly OddFile[];
  /** By name. */
  readonly claims: ReadonlyMap<string, SurveyedClaim & { readonly nameBytes: Bytes }>;
  readonly passwords: readonly SurveyedPassword[];
  /** Ports of any address on which something listens; undefined where the system does not tell. */
  readonly ports: ReadonlySet<number> | undefined;
  /** Registrations in all; those beyond `MAX_SURVEYED` are left out of `registrations`. */
  readonly total: number;
}

const ODD_KINDS = ['symlink', 'special', 'large', 'unreadable', 'line-break'] as const;
const HOLDERS = ['alive', 'dead', 'elsewhere', 'unknown'] as const;
const MAX_PATH_CHARS = 4096;

/** Why an odd file was not read. */
export const ODD_REASONS: Readonly<Record<OddFile['kind'], string>> = {
  symlink: 'is a symbolic link, not a regular file',
  special: 'is not a regular file',
  large: 'is larger than any registration',
  unreadable: 'cannot be read by this user',
  'line-break': 'has a line break in its name',
  'not-utf-8': 'has a name that is not UTF-8',
};

/** Puts the answer to one survey together, line by line. Lines that make no sense are passed over: the other side may be anything. */
export class SurveyReader {
  readonly #registrations: SurveyedRegistration[] = [];
  readonly #odd: OddFile[] = [];
  readonly #claims = new Map<string, SurveyedClaim & { nameBytes: Bytes }>();
  readonly #passwords: SurveyedPassword[] = [];
  readonly #ports = new Set<number>();
  #knowsPorts = false;
  #host = '';
  #uid: number | undefined;
  #directory = '';
  #missing = false;
  #isOursAlone = false;
  #ownerUid: number | undefined;
  /** Lines behind `> ` belong to it. */
  #open: { readonly words: readonly string[]; readonly lines: string[] } | undefined;

  /** `line` has one character for each byte. Gives the survey once it is whole. */
  take(line: Bytes): RegistrySurvey | undefined {
    if (line.startsWith('> ')) {
      this.#open?.lines.push(line);
      return undefined;
    }
    this.#finishOpen();
    const [word = '', ...rest] = line.split(' ');
    if (word === 'done') return this.#survey(Number(rest[0]));
    if (word === 'registration' || word === 'claim') this.#open = { words: [word, ...rest], lines: [] };
    else this.#takeFact(word, rest);
    return undefined;
  }

  #takeFact(word: string, rest: readonly string[]): void {
    const [first = '', second = '', third = ''] = rest;
    if (word === 'host') this.#host = textOf(first);
    else if (word === 'uid') this.#uid = numberOf(first);
    else if (word === 'missing') {
      this.#missing = true;
      this.#directory = textOf(rest.join(' '));
    } else if (word === 'directory') {
      this.#isOursAlone = third === 'yes';
      this.#ownerUid = numberOf(second);
      this.#directory = textOf(rest.slice(3).join(' '));
    } else if (word === 'odd') this.#takeOdd(first, rest.slice(1).join(' '));
    else if (word === 'password') {
      const password = { id: third, mine: first === 'mine', old: second === 'old' };
      if (/^[A-Za-z0-9_-]{1,64}$/.test(third) && this.#passwords.length < MAX_SURVEYED) this.#passwords.push(password);
    } else if (word === 'ports') this.#knowsPorts = first === 'known';
    else if (word === 'port' && /^[0-9A-F]{4}$/.test(first)) this.#ports.add(Number.parseInt(first, 16));
  }

  #takeOdd(word: string, name: Bytes): void {
    const kind = ODD_KINDS.find((known) => known === word);
    if (kind !== undefined && this.#odd.length < MAX_SURVEYED) this.#odd.push({ kind, fileName: textOf(name) });
  }

  #finishOpen(): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return;
    const [word, owner = '', ...rest] = open.words;
    if (word === 'registration') this.#addRegistration(owner, rest.join(' '), open.lines);
    else this.#addClaim(owner, rest, open.lines[0]?.slice(2) ?? '');
  }

  #addRegistration(owner: string, fileName: Bytes, lines: readonly string[]): void {
    if (this.#registrations.length >= MAX_SURVEYED || !fileName.endsWith('.json')) return;
    const nameBytes = fileName.slice(0, -'.json'.length);
    const name = decoded(nameBytes);
    if (name === undefined) {
      this.#odd.push({ kind: 'not-utf-8', fileName: textOf(fileName) });
      return;
    }
    const bytes = Buffer.from(lines.map((line) => line.slice(2)).join('\n'), 'latin1');
    const reading = readRegistration(bytes, `${name}.json`);
    this.#registrations.push({
      name,
      nameBytes,
      owner: owner === 'mine' ? 'mine' : numberOf(owner),
      content: lines.join('\n'),
      ...('problem' in reading ? { problem: reading.problem } : { registration: reading.registration }),
    });
  }

  #addClaim(owner: string, [state, ...rest]: readonly string[], line: Bytes): void {
    const nameBytes = rest.join(' ');
    const name = decoded(nameBytes);
    const holder = HOLDERS.find((known) => known === state);
    if (!name || holder === undefined || this.#claims.size >= MAX_SURVEYED) return;
    const [id = '', pid = '', , host = ''] = line.split(' ');
    const claimant = numberOf(pid);
    this.#claims.set(name, {
      mine: owner === 'mine',
      // A claim that does not name its holder proves nothing.
      holder: id === '' || claimant === undefined || host === '' ? 'unknown' : holder,
      id,
      ...(claimant !== undefined && { pid: claimant }),
      host: textOf(host),
      line,
      nameBytes,
    });
  }

  #survey(total: number): RegistrySurvey {
    return {
      host: this.#host,
      uid: this.#uid,
      directory: this.#directory,
      missing: this.#missing,
      isOursAlone: this.#isOursAlone,
      ownerUid: this.#ownerUid,
      registrations: this.#registrations,
      odd: this.#odd,
      claims: this.#claims,
      passwords: this.#passwords,
      ports: this.#knowsPorts ? this.#ports : undefined,
      total: Number.isSafeInteger(total) && total >= 0 ? total : this.#registrations.length,
    };
  }
}

function decoded(bytes: Bytes): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(bytes, 'latin1'));
  } catch {
    return undefined;
  }
}

function textOf(bytes: Bytes): string {
  return singleLine(Buffer.from(bytes, 'latin1').toString('utf8'), MAX_PATH_CHARS);
}

function numberOf(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}
