import type { Instance } from '../directory/instance.ts';
import type { Permission, Question } from '../opencode/schema.ts';
import { multiLine, singleLine } from '../plain-text.ts';
import { OperationError, quoteBlock, quoteName } from './answer.ts';
import type { Settlement } from './approval.ts';
import { type Asked, askedLine } from './asked.ts';
import { followUntil } from './following.ts';
import type { AskPerson, Call, Question as Form, Runtime } from './runtime.ts';

/** A person approves only what they see whole. */
const MAX_SHOWN_CHARS = 6_000;
const MAX_LABEL_CHARS = 200;

type Ask = (form: Form) => ReturnType<AskPerson>;

/**
 * Asks the person through the client. No answer of theirs means that nothing is sent.
 * @throws {OperationError} they declined, cancelled or did not answer in time
 */
export async function askPerson(
  runtime: Runtime,
  instance: Instance,
  asked: Asked,
  proposal: Settlement | undefined,
  call: Call,
  askThem: AskPerson,
): Promise<Settlement> {
  const limit = { timeoutMs: Math.max(0, followUntil(call) - runtime.clock.now()), signal: call.signal };
  const ask: Ask = (form) => askThem(form, limit);
  const { waiting } = asked;
  const settlement =
    waiting.kind === 'permission'
      ? await askPermission(whose(instance, asked), waiting.request, ask)
      : await askQuestions(whose(instance, asked), waiting.request, proposal, ask);
  if (settlement !== undefined) return settlement;
  throw new OperationError(
    `Nothing was answered: the person did not decide on ${askedLine(asked)} of ${quoteName(instance.name)}. It still waits; call respond again to ask them again.`,
  );
}

async function askPermission(agent: string, request: Permission, ask: Ask): Promise<Settlement | undefined> {
  const { permission, patterns, always, metadata } = request;
  const whole = [metadata?.command ?? patterns.join('\n'), metadata?.diff].filter(Boolean).join('\n\n');
  const shown = multiLine(whole, MAX_SHOWN_CHARS);
  // What was changed to be shown, or is too long for it, is not what would be allowed.
  const isExact = shown === multiLine(whole, Number.MAX_SAFE_INTEGER);
  const choices = isExact ? ['once', ...(always.length > 0 ? ['always'] : []), 'reject'] : ['reject'];
  const standing = always.length > 0 ? ` "always" also allows from now on: ${singleLine(always.join(', '), 300)}.` : '';
  const answer = await ask({
    message: `${agent} asks for permission: ${singleLine(permission, 60)}\n${quoteBlock(shown)}${isExact ? '' : '\nIt is too long to be shown whole here; allow it in that opencode.'}`,
    fields: {
      decision: { title: 'Allow it?', description: `The text in the frame is the agent's.${standing}`, choices },
      feedback: { title: 'Tell the agent, when rejecting (optional)' },
    },
    required: ['decision'],
  });
  const decision = answer?.['decision'];
  if (answer === undefined || decision === undefined || !choices.includes(decision)) return undefined;
  const feedback = answer['feedback']?.trim();
  if (decision !== 'reject') return { kind: 'permission', reply: decision === 'always' ? 'always' : 'once' };
  return { kind: 'permission', reply: 'reject', ...(feedback && { message: feedback }) };
}

async function askQuestions(
  agent: string,
  { questions }: Question,
  proposal: Settlement | undefined,
  ask: Ask,
): Promise<Settlement | undefined> {
  const text = questions.map(({ question }, index) => `${index + 1}. ${multiLine(question, 2_000)}`).join('\n');
  const proposed =
    proposal?.kind === 'answers' ? `\nThe model proposes: ${singleLine(JSON.stringify(proposal.answers), 500)}` : '';
  const fields = questions.map(({ question, options, multiple }, index) => {
    const labels = options.map(({ label }) => label);
    // A label that would be shown otherwise than it is cannot be chosen from a list.
    const fits = labels.length > 0 && labels.every((label) => singleLine(label, MAX_LABEL_CHARS) === label);
    const title = singleLine(question, 100);
    const listed = `One of, or your own words: ${singleLine(labels.join(' | '), 500)}`;
    return [
      `answer_${index + 1}`,
      multiple !== true && fits
        ? { title, choices: labels }
        : {
            title,
            description:
              multiple === true ? `One or more, on a line each: ${singleLine(labels.join(' | '), 500)}` : listed,
          },
    ] as const;
  });
  const answer = await ask({
    message: `${agent} asks:\n${quoteBlock(text)}${proposed}`,
    fields: Object.fromEntries(fields),
    required: fields.map(([name]) => name),
  });
  if (answer === undefined) return undefined;
  const given = fields.map(([name], index) => {
    const text = answer[name] ?? '';
    const parts = questions[index]?.multiple === true ? text.split('\n') : [text];
    return parts.map((part) => part.trim()).filter((part) => part !== '');
  });
  return given.some((labels) => labels.length === 0) ? undefined : { kind: 'answers', answers: given };
}

function whose(instance: Instance, { session, ofSubAgent }: Asked): string {
  const title = JSON.stringify(singleLine(session.title, 100));
  return `${ofSubAgent ? 'A sub-agent of the agent' : 'The agent'} on ${quoteName(instance.name)} (host ${quoteName(instance.host)}), session ${title},`;
}
