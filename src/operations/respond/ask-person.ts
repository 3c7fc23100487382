import type { ReaderWords } from '../../model/advice.ts';
import type { Instance } from '../../model/instance.ts';
import type { Permission, Question } from '../../opencode/schema.ts';
import { inMarks } from '../../opencode/waiting.ts';
import { multiLine, quoted, quoteShort, singleLine } from '../../base/plain-text.ts';
import { OperationError, quoteBlock, quoteName } from '../answer.ts';
import type { Settlement } from './approval.ts';
import { type Asked, askedLine } from './asked.ts';
import { followUntil } from '../send/following.ts';
import type { AskPerson, Call, PersonAnswer, Form, Runtime } from '../runtime.ts';

/** A longer request cannot be approved here: a person must see all of it. */
const MAX_SHOWN_CHARS = 6_000;
/** Limit for what `always` would allow: a form has room for a few lines beside its field. */
const MAX_STANDING_CHARS = 1_000;
const MAX_LABEL_CHARS = 200;
/** Variation selectors and joiners of emoji (⚠️): invisible and cleaned away, but they cannot hide anything. */
const EMOJI_STYLE = /(?<=\p{Extended_Pictographic}\ufe0f?)[\ufe0f\u200d]/gu;

/** A form, and the reader of its fields, which returns undefined for an answer that is not one of the choices. */
interface Dialog {
  readonly form: Omit<Form, 'id' | 'about'>;
  readonly read: (fields: Readonly<Record<string, string>>) => Settlement | undefined;
}

/**
 * Asks the person through the client; a decline rejects.
 * @throws {OperationError} the person gave no answer, or this client cannot ask them
 */
export async function askPerson(
  runtime: Runtime,
  instance: Instance,
  asked: Asked,
  proposal: Settlement | undefined,
  call: Call,
  askThem: AskPerson,
): Promise<Settlement> {
  const { waiting } = asked;
  const agent = whose(instance, asked);
  const { form, read } =
    waiting.kind === 'permission'
      ? permissionDialog(agent, waiting.request)
      : questionDialog(agent, waiting.request, proposal);
  const timeoutMs = Math.max(0, followUntil(call) - runtime.clock.monotonic());
  const about = `${askedLine(asked)} of ${quoteName(instance.name)}`;
  const answer = await askThem({ ...form, id: waiting.request.id, about }, { timeoutMs, signal: call.signal });
  if (answer.kind === 'declined')
    return waiting.kind === 'permission' ? { kind: 'permission', reply: 'reject' } : { kind: 'reject' };
  const settlement = answer.kind === 'accepted' ? read(answer.fields) : undefined;
  if (settlement !== undefined) return settlement;
  throw new OperationError((words) => `Nothing was answered: ${whyNot(answer, about, words)}`);
}

function whyNot(
  answer: Exclude<PersonAnswer, { readonly kind: 'declined' }>,
  what: string,
  { respond }: ReaderWords,
): string {
  const waits = 'It still waits in that opencode, where the person can settle it';
  switch (answer.kind) {
    case 'late':
      return `the person did not decide on ${what} in time. ${waits}. Use ${respond} only after they say that they can answer now.`;
    case 'dismissed':
      return `the person closed the form about ${what} without a decision. ${waits}. Ask them what they want.`;
    case 'accepted':
      return `the form about ${what} came back without one of its choices. ${waits}.`;
    case 'unavailable':
      return `this client could not ask the person about ${what}: ${answer.reason}. ${waits}, so tell them. They decide who may answer an agent's requests: docs/permissions.md of opencode-mcp lists the choices.`;
  }
}

/** Whether a person sees exactly what they would allow: nothing is cut, and no characters are removed. */
export function isShownWhole(text: string, maxChars: number): boolean {
  return multiLine(text, maxChars) === text.replaceAll('\r\n', '\n').replace(EMOJI_STYLE, '');
}

function permissionDialog(agent: string, { permission, patterns, always, metadata }: Permission): Dialog {
  const whole = [metadata?.command ?? patterns.join('\n'), metadata?.diff].filter(Boolean).join('\n\n');
  const shown = multiLine(whole, MAX_SHOWN_CHARS);
  const isExact = isShownWhole(whole, MAX_SHOWN_CHARS);
  const standing = always.map((one) => JSON.stringify(one)).join(', ');
  const isStandingExact =
    standing.length <= MAX_STANDING_CHARS && always.every((one) => singleLine(one, MAX_STANDING_CHARS) === one);
  const offersStanding = isExact && isStandingExact && always.length > 0;
  const choices = isExact ? ['once', ...(offersStanding ? ['always'] : []), 'reject'] : ['reject'];
  const about = offersStanding
    ? ` "always" also allows from now on: ${standing}.`
    : always.length > 0
      ? ' "always" would allow more than can be shown here; choose it in that opencode.'
      : '';
  return {
    form: {
      message: `${agent} asks for permission: ${quoteShort(permission, 60)}\n${quoteBlock(shown)}${isExact ? '' : '\nIt is too long to show whole here, or has characters that cannot be shown; allow it in that opencode.'}`,
      fields: {
        decision: { title: 'Allow it?', description: `The text in the frame is the agent's.${about}`, choices },
        feedback: { title: 'Tell the agent, when rejecting (optional)' },
      },
      required: ['decision'],
    },
    read: ({ decision, feedback = '' }) => {
      if (decision === undefined || !choices.includes(decision)) return undefined;
      if (decision !== 'reject') return { kind: 'permission', reply: decision === 'always' ? 'always' : 'once' };
      return { kind: 'permission', reply: 'reject', ...(feedback.trim() && { message: feedback.trim() }) };
    },
  };
}

function questionDialog(agent: string, { questions }: Question, proposal: Settlement | undefined): Dialog {
  const text = questions.map(({ question }, index) => `${index + 1}. ${multiLine(question, 2_000)}`).join('\n');
  const proposed =
    proposal?.kind === 'answers' ? `\nThe model proposes: ${singleLine(JSON.stringify(proposal.answers), 500)}` : '';
  const fields = questions.map(({ question, options, multiple }, index) => {
    const labels = options.map(({ label }) => label);
    // Only labels that are shown unchanged can be chosen from a list.
    const fits = labels.length > 0 && labels.every((label) => singleLine(label, MAX_LABEL_CHARS) === label);
    const title = quoted(question, 100);
    const offered = inMarks(singleLine(labels.join(' | '), 500));
    const listed = `One of, or your own words: ${offered}`;
    return [
      `answer_${index + 1}`,
      multiple !== true && fits
        ? { title, choices: labels }
        : {
            title,
            ...(multiple === true
              ? { description: `One or more, on a line each: ${offered}`, isList: true as const }
              : { description: listed }),
          },
    ] as const;
  });
  return {
    form: {
      message: `${agent} asks:\n${quoteBlock(text)}${proposed}`,
      fields: Object.fromEntries(fields),
      required: fields.map(([name]) => name),
    },
    read: (answer) => {
      const given = fields.map(([name], index) => {
        const words = answer[name] ?? '';
        const parts = questions[index]?.multiple === true ? words.split('\n') : [words];
        return parts.map((part) => part.trim()).filter((part) => part !== '');
      });
      return given.some((labels) => labels.length === 0) ? undefined : { kind: 'answers', answers: given };
    },
  };
}

function whose(instance: Instance, { session, ofSubAgent }: Asked): string {
  const title = JSON.stringify(singleLine(session.title, 100));
  return `${ofSubAgent ? 'A sub-agent of the agent' : 'The agent'} on ${quoteName(instance.name)} (host ${quoteName(instance.host)}), session ${title},`;
}
