import * as z from 'zod';

import { jsonOf } from '../../base/errors.ts';
import { quoted } from '../../base/plain-text.ts';
import type { Settings } from '../../config/settings.ts';
import { ASKS_NOTHING, sshArguments } from '../relay/ssh-arguments.ts';
import { anotherCommand, cannotRun, wantsPerson } from '../relay/ssh-failures.ts';
import { type BriefRun, runBriefly } from '../run-briefly.ts';
import { MAX_SHOWN_CHARS } from '../shown.ts';
import {
  removal,
  type RemovalOrder,
  type RegistrySurvey,
  registrySurvey,
  SURVEY_FORMAT,
  type SurveyRequest,
} from './registry-survey.ts';
import type { Registry } from './registry.ts';

export interface RelayRegistryOptions {
  readonly sshCommand: readonly string[];
  readonly registryDir: Settings['registryDir'];
  /** For the connection and the answer; default 60 s, as for every batch connection to the relay. */
  readonly limitMs?: number;
}

/** Plain words, which every login shell reads alike. The request comes on standard input. */
const REMOTE_COMMAND = 'opencode-connected survey --request';
const LIMIT_MS = 60_000;
/** A survey of the most registrations that are read is below 8 MB. */
const MAX_ANSWER_CHARS = 16 * 1024 * 1024;
/** A shell's exit code for a missing program, and ssh's for a failed connection. */
const NOT_FOUND = 127;
const NO_CONNECTION = 255;

const surveyAnswer = z.object({ survey: registrySurvey });
const removalAnswer = z.object({ removals: z.array(removal).readonly() });
const failureAnswer = z.object({ error: z.string() });

/** The registry directory of the relay, read by the `opencode-connected` that is installed there. */
export function relayRegistry(options: RelayRegistryOptions): Registry {
  const { path, explicit } = options.registryDir;
  /** As the relay resolved it, so that removals happen where the survey was taken. */
  let surveyed: RegistrySurvey | undefined;
  const request = (orders?: readonly RemovalOrder[]): SurveyRequest => ({
    format: SURVEY_FORMAT,
    directory: surveyed?.directory ?? path,
    isDefault: surveyed === undefined && !explicit,
    orders,
  });
  return {
    survey: async (signal) => {
      surveyed = undefined;
      ({ survey: surveyed } = await ask(options, { request: request(), answer: surveyAnswer, signal }));
      return surveyed;
    },
    remove: async (orders, signal) => {
      const { removals } = await ask(options, { request: request(orders), answer: removalAnswer, signal });
      return removals;
    },
  };
}

interface Question<T> {
  readonly request: SurveyRequest;
  readonly answer: z.ZodType<T>;
  readonly signal: AbortSignal;
}

async function ask<T>(
  { sshCommand, limitMs = LIMIT_MS }: RelayRegistryOptions,
  { request, answer, signal }: Question<T>,
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
  // Login scripts may print anything before it, including an unfinished line such as the terminal's title.
  const lines = run.output.split('\n').filter((line) => line.trim() !== '');
  const said = jsonOf(/\{"(?:survey|removals|error)":.*/.exec(lines.at(-1) ?? '')?.[0] ?? '');
  const parsed = answer.safeParse(said);
  if (parsed.success) return parsed.data;
  const failure = failureAnswer.safeParse(said);
  if (failure.success) throw new Error(`the relay says ${quoted(failure.data.error, MAX_SHOWN_CHARS)}`);
  throw new Error(failureOf(run, lines, said !== undefined));
}

function failureOf({ code, errors }: BriefRun, lines: readonly string[], hasAnswer: boolean): string {
  const words = errors.trim().split('\n').slice(-3).join('; ').trim();
  const how = `${words === '' ? '' : `${quoted(words, MAX_SHOWN_CHARS)} `}(ssh ended with status ${code ?? 'unknown'})`;
  if (code === NO_CONNECTION && wantsPerson(words))
    return `${how}; ssh cannot ask you here: load the key into ssh-agent, or log in once by hand`;
  if (code === NO_CONNECTION) return how;
  if (code === NOT_FOUND)
    return `a shell without a terminal finds no opencode-connected there, or no node: ${how}; install opencode-mcp on the relay, and link both programs into a folder of that shell's PATH, until $RELAY_SSH_CMD opencode-connected survey prints a line`;
  if (hasAnswer || /unknown subcommand "survey"/.test(words))
    return `its opencode-connected is of another version than this one, which does not understand it: ${how}; upgrade the older of the two`;
  return anotherCommand(lines, how);
}
