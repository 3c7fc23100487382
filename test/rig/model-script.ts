/**
 * The little language that the last user message is written in: what the scripted model does.
 * `parseScript` reads it; `expectedReply` gives the text that a finished turn must show.
 */

export type Step =
  /** Stream `chunks`, `everyMs` apart. */
  | { readonly kind: 'text'; readonly chunks: readonly string[]; readonly everyMs: number }
  | { readonly kind: 'reasoning'; readonly thinking: string; readonly chunks: readonly string[] }
  /** Send the response's head and `before`, wait for the gate, send `after`. */
  | { readonly kind: 'gate'; readonly name: string; readonly before: string; readonly after: string }
  /** Accept the request and send nothing, not even a head, until the gate opens. */
  | { readonly kind: 'hang'; readonly name: string }
  /** Call one of opencode's tools; the request that brings the tool's result gets a final text. */
  | { readonly kind: 'tool'; readonly tool: string; readonly input: Readonly<Record<string, unknown>> }
  /** Call these tools one after the other, each after the result of the one before; then say what the last one returned. */
  | {
      readonly kind: 'plan';
      readonly calls: readonly { readonly tool: string; readonly input: Readonly<Record<string, unknown>> }[];
    }
  /** Answer with an HTTP error: always, or the first `times` requests for this very text, and say `afterwards` from then on. */
  | { readonly kind: 'fail'; readonly status: number; readonly times?: number; readonly afterwards?: string }
  /** Say the text, and end for this reason in the place of `stop`: `length` (cut), `content_filter` (refused). */
  | { readonly kind: 'ends'; readonly text: string; readonly finish: string }
  /** Refuse the first `times` requests for this very text, since it is too long for the context; then do `inner`. */
  | { readonly kind: 'too-long'; readonly times: number; readonly inner: Step }
  /** Do `inner`; the first `times` requests of this session use more tokens than its context holds. */
  | { readonly kind: 'overflow'; readonly times: number; readonly inner: Step };

/** The gate that `hang` without a name waits at. */
export const HANG_GATE = 'hang';

/** The beginning of what opencode says of its own accord after a compaction. */
export const CONTINUE = 'Continue if you have next steps';

/** What the model says when opencode, after a compaction, asks it to continue. */
export const CONTINUED = 'went on after the compaction';

/** What a finished `hang` turn says, after the gate was opened. */
export const HANG_REPLY = 'released';

const FORMS: ReadonlyArray<readonly [RegExp, (match: readonly string[]) => Step]> = [
  [/^echo:\s*([^]*)$/, ([, text = '']) => say(text)],
  [/^slow\s+(\d+)\s+(\d+):\s*([^]*)$/, ([, count = '', ms = '', text = '']) => slow(Number(count), Number(ms), text)],
  [/^long\s+(\d+)$/, ([, chars = '']) => ({ kind: 'text', chunks: slices(longText(Number(chars)), 1000), everyMs: 0 })],
  [/^bash:\s*([^]*)$/, ([, command = '']) => bash(command)],
  [/^ask:\s*([^|]*)\|([^]*)$/, ([, question = '', options = '']) => ask(question.trim(), options.split('|'))],
  // As large as a lockfile, from a message of a few characters.
  [/^flood-bash\s+(\d+)$/, ([, chars = '']) => bash(`echo ok # ${'x'.repeat(Number(chars))}`)],
  [/^flood-write\s+(\S+)\s+(\d+)$/, ([, filePath = '', chars = '']) => write(filePath, longText(Number(chars)))],
  [/^cut:\s*([^]*)$/, ([, text = '']) => ({ kind: 'ends', text, finish: 'length' })],
  [/^refuse:\s*([^]*)$/, ([, text = '']) => ({ kind: 'ends', text, finish: 'content_filter' })],
  [
    /^(too-long|overflow)\s+(\d+):\s*([^]*)$/,
    ([, kind, times = '', script = '']) => ({
      kind: kind === 'overflow' ? 'overflow' : 'too-long',
      times: Number(times),
      inner: parseScript(script),
    }),
  ],
  // What opencode itself says after a compaction.
  [new RegExp(CONTINUE), () => say(CONTINUED)],
  [/^task:\s*([^]*)$/, ([, prompt = '']) => task(prompt)],
  [/^plan:\s*([^]*)$/, ([, calls = '']) => plan(calls)],
  [/^fail\s+(\d+)$/, ([, status = '']) => ({ kind: 'fail', status: Number(status) })],
  [
    /^fail-times\s+(\d+)\s+(\d+):\s*([^]*)$/,
    ([, times = '', status = '', afterwards = '']) => ({
      kind: 'fail',
      status: Number(status),
      times: Number(times),
      afterwards,
    }),
  ],
  [/^hang(?:\s+(\S+))?$/, ([, name]) => ({ kind: 'hang', name: name ?? HANG_GATE })],
  [
    /^reason:\s*([^|]*)\|([^]*)$/,
    ([, thinking = '', text = '']) => ({ kind: 'reasoning', thinking, chunks: words(text) }),
  ],
  [
    /^gate-mid\s+([^\s:]+):\s*([^|]*)\|([^]*)$/,
    ([, name = '', before = '', after = '']) => ({ kind: 'gate', name, before, after }),
  ],
  [/^gate\s+([^\s:]+):\s*([^]*)$/, ([, name = '', after = '']) => ({ kind: 'gate', name, before: '', after })],
];

/** Never fails: what is not a script is answered with a text that says so, so that a typo shows in the test's output. */
export function parseScript(text: string): Step {
  const script = text.trim();
  for (const [form, read] of FORMS) {
    const match = form.exec(script);
    if (match) return read(match);
  }
  return say(`No script for: ${text}`);
}

/** The whole text of the last assistant message of a turn that ran `text` and had nothing go wrong; for a tool its result must be given as the model saw it. */
export function expectedReply(text: string, toolResult = ''): string {
  const step = parseScript(text);
  if (step.kind === 'text' || step.kind === 'reasoning') return step.chunks.join('');
  if (step.kind === 'gate') return step.before + step.after;
  if (step.kind === 'hang') return HANG_REPLY;
  if (step.kind === 'plan') return toolReply(step.calls.at(-1)?.tool ?? '', toolResult);
  if (step.kind === 'ends') return step.text;
  if (step.kind === 'too-long' || step.kind === 'overflow') return CONTINUED;
  if (step.kind === 'tool') return toolReply(step.tool, toolResult);
  return step.afterwards ?? '';
}

/** What the model says when a tool's result has come back to it. */
export function toolReply(tool: string, result: string): string {
  return `${tool} returned: ${result.trim()}`;
}

/** `chars` characters of numbered lines, so that a cut or repeated piece shows itself. */
export function longText(chars: number): string {
  let text = '';
  for (let line = 1; text.length < chars; line++) text += `line ${String(line).padStart(7, '0')}\n`;
  return text.slice(0, chars);
}

function say(text: string): Step {
  return { kind: 'text', chunks: words(text), everyMs: 0 };
}

function bash(command: string): Step {
  return { kind: 'tool', tool: 'bash', input: { command } };
}

function write(filePath: string, content: string): Step {
  return { kind: 'tool', tool: 'write', input: { filePath, content } };
}

function slow(count: number, everyMs: number, text: string): Step {
  const chunks = Array.from({ length: count }, (_, index) => `${index === 0 ? '' : ' '}${text} ${index + 1}`);
  return { kind: 'text', chunks, everyMs };
}

function ask(question: string, options: readonly string[]): Step {
  return {
    kind: 'tool',
    tool: 'question',
    input: {
      questions: [
        {
          question,
          // opencode's schema allows 30 characters.
          header: question.slice(0, 30),
          options: options.map((option) => ({ label: option.trim(), description: `Choose ${option.trim()}` })),
        },
      ],
    },
  };
}

/** `[["tool", {input}], …]` as JSON. */
function plan(calls: string): Step {
  const parsed = JSON.parse(calls) as readonly (readonly [string, Readonly<Record<string, unknown>>])[];
  return { kind: 'plan', calls: parsed.map(([tool, input]) => ({ tool, input })) };
}

function task(prompt: string): Step {
  return { kind: 'tool', tool: 'task', input: { description: 'Scripted sub-agent', prompt, subagent_type: 'general' } };
}

/** Split after each space: a streamed text of several deltas even for short replies. */
function words(text: string): string[] {
  return text.match(/\S*\s*/g)?.filter((word) => word !== '') ?? [];
}

function slices(text: string, size: number): string[] {
  const pieces: string[] = [];
  for (let start = 0; start < text.length; start += size) pieces.push(text.slice(start, start + size));
  return pieces;
}
