import { CONTINUED, HANG_REPLY, parseScript, type Step } from '../model/model-script.ts';
import type { Fields, FormField } from './store.ts';

/** One action of a fake's model in a turn. A tool call ends the model's step. */
export type TurnStep =
  | { readonly kind: 'say' | 'think'; readonly chunks: readonly string[]; readonly everyMs?: number }
  /** Waits for the gate. Before any text there is no message of the assistant yet, as with a model that hangs. */
  | { readonly kind: 'gate'; readonly name: string }
  | {
      readonly kind: 'tool';
      readonly name: string;
      readonly input: Fields;
      readonly output?: string;
      /** The tool fails with this message. */
      readonly fails?: string;
      readonly asks?: {
        readonly action: string;
        readonly resources: readonly string[];
        readonly save?: readonly string[];
      };
    }
  /** Shows a form; the answer is its result. */
  | { readonly kind: 'form'; readonly title: string; readonly fields: readonly FormField[] }
  /** Runs this prompt in a child session. */
  | { readonly kind: 'subagent'; readonly prompt: string }
  /** Repeats the result of the last tool, form or sub-agent. */
  | { readonly kind: 'report'; readonly tool: string }
  | { readonly kind: 'retry'; readonly message: string; readonly status?: number }
  | { readonly kind: 'fail'; readonly message: string; readonly status?: number }
  | { readonly kind: 'compact'; readonly summary: string }
  | { readonly kind: 'finish'; readonly reason: 'length' | 'content-filter' };

/** Number of retries after a model error before the turn fails. */
const RETRIES = 2;

/** Reads the language of `model-script.ts`, so that one scenario runs on real servers and on the fake. */
export function stepsOf(text: string): readonly TurnStep[] {
  return translate(parseScript(text));
}

function translate(step: Step): readonly TurnStep[] {
  switch (step.kind) {
    case 'text':
      return [{ kind: 'say', chunks: step.chunks, everyMs: step.everyMs }];
    case 'reasoning':
      return [
        { kind: 'think', chunks: [step.thinking] },
        { kind: 'say', chunks: step.chunks },
      ];
    case 'gate':
      return [
        ...(step.before === '' ? [] : [{ kind: 'say' as const, chunks: [step.before] }]),
        { kind: 'gate', name: step.name },
        { kind: 'say', chunks: [step.after] },
      ];
    case 'hang':
      return [
        { kind: 'gate', name: step.name },
        { kind: 'say', chunks: [HANG_REPLY] },
      ];
    case 'plan':
      return [
        ...step.calls.flatMap(({ tool, input }) => stepsOfCall(tool, input)),
        { kind: 'report', tool: step.calls.at(-1)?.tool ?? '' },
      ];
    case 'fail': {
      const { status, times } = step;
      const message = `scripted failure ${status}`;
      const retries = (count: number): TurnStep[] =>
        Array.from({ length: count }, () => ({ kind: 'retry', message, status }));
      if (times !== undefined) return [...retries(times), { kind: 'say', chunks: [step.afterwards ?? ''] }];
      return [...retries(status < 500 ? 0 : RETRIES), { kind: 'fail', message, status }];
    }
    case 'ends':
      return [
        { kind: 'say', chunks: [step.text] },
        { kind: 'finish', reason: step.finish === 'length' ? 'length' : 'content-filter' },
      ];
    case 'too-long':
    case 'overflow':
      return [
        ...(step.kind === 'overflow' ? translate(step.inner) : []),
        { kind: 'compact', summary: 'Scripted summary of what was said' },
        { kind: 'say', chunks: [CONTINUED] },
      ];
  }
}

function stepsOfCall(tool: string, input: Fields): readonly TurnStep[] {
  if (tool === 'task') return [{ kind: 'subagent', prompt: String(input['prompt']) }];
  if (tool === 'question') return [questionForm(input as unknown as QuestionInput)];
  if (tool !== 'bash') return [{ kind: 'tool', name: tool, input, output: 'done' }];
  // OpenCode 2 names the bash tool shell.
  const command = String(input['command']);
  const asks = { action: 'shell', resources: [command], save: [command] };
  return [{ kind: 'tool', name: 'shell', input, output: printedText(command), asks }];
}

interface QuestionInput {
  readonly questions: readonly {
    readonly question: string;
    readonly options: readonly { readonly label: string; readonly description?: string }[];
  }[];
}

function questionForm({ questions }: QuestionInput): TurnStep {
  return {
    kind: 'form',
    title: questions.map(({ question }) => question).join(' '),
    fields: questions.map(({ question, options }, index) => ({
      key: `question_${index}`,
      type: 'string',
      title: question,
      required: true,
      options: options.map((option) => ({ value: option.label, ...option })),
      custom: true,
    })),
  };
}

/** The output of `echo` and `printf`; the fake runs nothing. */
function printedText(command: string): string {
  const [, quoted, plain] = /^(?:echo|printf)\s+(?:"([^"]*)"|(.*))$/.exec(command) ?? [];
  return quoted ?? plain ?? '';
}
