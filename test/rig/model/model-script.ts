/** The scripts for the scripted model: the last user message of a conversation is one. */

interface ToolCall {
  readonly tool: string;
  readonly input: Readonly<Record<string, unknown>>;
}

export type Step =
  /** Stream `chunks`, `everyMs` apart. */
  | { readonly kind: 'text'; readonly chunks: readonly string[]; readonly everyMs: number }
  | { readonly kind: 'reasoning'; readonly thinking: string; readonly chunks: readonly string[] }
  /** Send the response's head and `before`, wait for the gate, send `after`. */
  | { readonly kind: 'gate'; readonly name: string; readonly before: string; readonly after: string }
  /** Accept the request and send nothing, not even a head, until the gate opens. */
  | { readonly kind: 'hang'; readonly name: string }
  /** Call these tools of opencode's, each after the result of the previous one; then repeat the last result. */
  | { readonly kind: 'plan'; readonly calls: readonly ToolCall[] }
  /** Answer with an HTTP error: always, or the first `times` requests of exactly this text, and with `afterwards` from then on. */
  | { readonly kind: 'fail'; readonly status: number; readonly times?: number; readonly afterwards?: string }
  /** Say the text, and end for another reason than `stop`: `length` (cut), `content_filter` (refused). */
  | { readonly kind: 'ends'; readonly text: string; readonly finish: string }
  /** Refuse the first `times` requests of exactly this text as too long for the context; then do `inner`. */
  | { readonly kind: 'too-long'; readonly times: number; readonly inner: Step }
  /** Do `inner`; the first `times` requests of this session use more tokens than its context holds. */
  | { readonly kind: 'overflow'; readonly times: number; readonly inner: Step };

/** The gate of a `hang` without a name. */
export const HANG_GATE = 'hang';

/** The beginning of opencode's own prompt after a compaction. */
export const CONTINUE = 'Continue if you have next steps';

/** The model's answer to that prompt. */
export const CONTINUED = 'went on after the compaction';

/** The text of a `hang` turn once its gate is open. */
export const HANG_REPLY = 'released';

const FORMS: ReadonlyArray<readonly [RegExp, (match: readonly string[]) => Step]> = [
  [/^echo:\s*([^]*)$/, ([, text = '']) => say(text)],
  [/^slow\s+(\d+)\s+(\d+):\s*([^]*)$/, ([, count = '', ms = '', text = '']) => slow(Number(count), Number(ms), text)],
  [/^long\s+(\d+)$/, ([, chars = '']) => ({ kind: 'text', chunks: slices(longText(Number(chars)), 1000), everyMs: 0 })],
  [/^bash:\s*([^]*)$/, ([, command = '']) => bash(command)],
  [/^ask:\s*([^|]*)\|([^]*)$/, ([, question = '', options = '']) => ask(question.trim(), options.split('|'))],
  // Calls as large as a lockfile, from a short message.
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
  // opencode's own prompt after a compaction.
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

/** Never fails: any other text gets a reply that says that it is no script, so that a typo shows in the test's output. */
export function parseScript(text: string): Step {
  const script = text.trim();
  for (const [form, toStep] of FORMS) {
    const match = form.exec(script);
    if (match) return toStep(match);
  }
  return say(`No script for: ${text}`);
}

/** The text of the last assistant message of a successful turn of `text`. `toolResult`: the last tool's result as the model sees it. */
export function expectedReply(text: string, toolResult = ''): string {
  const step = parseScript(text);
  if (step.kind === 'text' || step.kind === 'reasoning') return step.chunks.join('');
  if (step.kind === 'gate') return step.before + step.after;
  if (step.kind === 'hang') return HANG_REPLY;
  if (step.kind === 'plan') return toolReply(step.calls.at(-1)?.tool ?? '', toolResult);
  if (step.kind === 'ends') return step.text;
  if (step.kind === 'too-long' || step.kind === 'overflow') return CONTINUED;
  return step.afterwards ?? '';
}

/** The model's text after a tool's result. */
export function toolReply(tool: string, result: string): string {
  return `${tool} returned: ${result.trim()}`;
}

/** `chars` characters of numbered lines, in which a missing or repeated piece is visible. */
export function longText(chars: number): string {
  let text = '';
  for (let line = 1; text.length < chars; line++) text += `line ${String(line).padStart(7, '0')}\n`;
  return text.slice(0, chars);
}

function say(text: string): Step {
  return { kind: 'text', chunks: words(text), everyMs: 0 };
}

function callOf(tool: string, input: ToolCall['input']): Step {
  return { kind: 'plan', calls: [{ tool, input }] };
}

function bash(command: string): Step {
  return callOf('bash', { command });
}

function write(filePath: string, content: string): Step {
  return callOf('write', { filePath, content });
}

function slow(count: number, everyMs: number, text: string): Step {
  const chunks = Array.from({ length: count }, (_, index) => `${index === 0 ? '' : ' '}${text} ${index + 1}`);
  return { kind: 'text', chunks, everyMs };
}

function ask(question: string, labels: readonly string[]): Step {
  const options = labels.map((label) => ({ label: label.trim(), description: `Choose ${label.trim()}` }));
  // opencode's schema allows 30 characters for the header.
  return callOf('question', { questions: [{ question, header: question.slice(0, 30), options }] });
}

/** `[["tool", {input}], …]` as JSON. */
function plan(calls: string): Step {
  const parsed = JSON.parse(calls) as readonly (readonly [string, Readonly<Record<string, unknown>>])[];
  return { kind: 'plan', calls: parsed.map(([tool, input]) => ({ tool, input })) };
}

function task(prompt: string): Step {
  return callOf('task', { description: 'Scripted sub-agent', prompt, subagent_type: 'general' });
}

/** Splits after each space, so that even short replies stream several deltas. */
function words(text: string): string[] {
  return text.match(/\S*\s*/g)?.filter((word) => word !== '') ?? [];
}

function slices(text: string, size: number): string[] {
  const pieces: string[] = [];
  for (let start = 0; start < text.length; start += size) pieces.push(text.slice(start, start + size));
  return pieces;
}
