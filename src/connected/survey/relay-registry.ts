import * as z from 'zod';

import { jsonOf } from '../../base/errors.ts';
import { quoted } from '../../base/plain-text.ts';
import { ASKS_NOTHING, sshArguments } from '../relay/ssh-arguments.ts';
import { anotherCommand, cannotRun, wantsPerson } from '../relay/ssh-process.ts';
import { type BriefRun, runBriefly } from '../run-briefly.ts';
import type { RegistryPlace } from './registry-place.ts';
import { removal, type RegistrySurvey, registrySurvey, SURVEY_FORMAT, type SurveyRequest } from './registry-survey.ts';
import type { Registry } from './registry.ts';

export interface RelayRegistryOptions extends Pick<RegistryPlace, 'directory' | 'isDefault'> {
  /** The person's ssh command in words. */
  readonly sshCommand: readonly string[];
  /** For the connection and the answer; default 60 s, as for every batch connection to the relay. */
  readonly limitMs?: number;
}

/** Plain words, which every login shell takes alike. What is asked comes on standard input. */
const REMOTE_COMMAND = 'opencode-connected survey --request';
const LIMIT_MS = 60_000;
/** A survey of the most registrations that are read is below 8 MB. */
const MAX_ANSWER_CHARS = 16 * 1024 * 1024;
const MAX_REASON_CHARS = 300;
/** What shells give for a program that is not there, and ssh for a connection that is not. */
const NOT_FOUND = 127;
const NO_CONNECTION = 255;

const surveyAnswer = z.object({ survey: registrySurvey });
const removalAnswer = z.object({ removals: z.array(removal).readonly() });

/** The registry directory of the relay, looked at by the `opencode-connected` that is installed there. */
export function relayRegistry(options: RelayRegistryOptions): Registry {
  const { directory, isDefault } = options;
  /** As the relay resolved it, so that what is removed lies where it was seen. */
  let surveyed: RegistrySurvey | undefined;
  return {
    survey: async (signal) => {
      const request = { format: SURVEY_FORMAT, directory, isDefault } as const;
      ({ survey: surveyed } = await ask(options, { request, answer: surveyAnswer, signal }));
      return surveyed;
    },
    remove: async (orders, signal) => {
      const where =
        surveyed === undefined ? { directory, isDefault } : { directory: surveyed.directory, isDefault: false };
      const request = { format: SURVEY_FORMAT, ...where, orders } as const;
      const { removals } = await ask(options, { request, answer: removalAnswer, signal });
      return removals;
    },
  };
}

interface Asking<T> {
  readonly request: SurveyRequest;
  readonly answer: z.ZodType<T>;
  readonly signal: AbortSignal;
}

async function ask<T>(
  { sshCommand, limitMs = LIMIT_MS }: RelayRegistryOptions,
  { request, answer, signal }: Asking<T>,
): Promise<T> {
  const [program = '', ...words] = sshArguments({
    command: sshCommand,
    interactive: false,
    remoteCommand: REMOTE_COMMAND,
  });
  const env = { ...process.env, ...ASKS_NOTHING };
  const run = await runBriefly(program, words, env, {
    limitMs,
    signalsAll: true,
    input: `${JSON.stringify(request)}\n`,
    maxOutputChars: MAX_ANSWER_CHARS,
    signal,
  });
  if (signal.aborted) throw new Error('it was interrupted');
  if (run.startError !== undefined) throw new Error(cannotRun(program, run.startError));
  if (run.isLate) throw new Error(`there was no answer within ${limitMs / 1000} s`);
  // What a login script prints comes before it, a line without its end (the title of the terminal) too.
  const lines = run.output.split('\n').filter((line) => line.trim() !== '');
  const said = jsonOf(/\{"(?:survey|removals|error)":.*/.exec(lines.at(-1) ?? '')?.[0] ?? '');
  const parsed = answer.safeParse(said);
  if (parsed.success) return parsed.data;
  const failure = z.object({ error: z.string() }).safeParse(said);
  if (failure.success) throw new Error(`the relay says ${quoted(failure.data.error, MAX_REASON_CHARS)}`);
  throw new Error(whyNot(run, lines, said));
}

function whyNot({ code, errors }: BriefRun, lines: readonly string[], said: unknown): string {
  const words = errors.trim().split('\n').slice(-3).join('; ').trim();
  const how = `${words === '' ? '' : `${quoted(words, MAX_REASON_CHARS)} `}(ssh ended with status ${code ?? 'unknown'})`;
  if (code === NO_CONNECTION) {
    const hint = wantsPerson(words)
      ? '; nothing is asked here: load the key into ssh-agent, or log in once by hand'
      : '';
    return `${how}${hint}`;
  }
  if (code === NOT_FOUND)
    return `a shell without a terminal finds no opencode-connected there, or no node: ${how}; install opencode-mcp on the relay, and link both programs into a folder of that shell's PATH, until $RELAY_SSH_CMD opencode-connected survey prints a line`;
  if (/unknown subcommand "survey"/.test(words) || (typeof said === 'object' && said !== null))
    return `its opencode-connected is of another version than this one, which does not understand it: ${how}; upgrade the older of the two`;
  return anotherCommand(lines, how);
}
