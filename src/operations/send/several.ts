import { messageIn, type ReaderWords } from '../../model/advice.ts';
import type { Instance } from '../../model/instance.ts';
import { sentence, StreamCleaner } from '../../base/plain-text.ts';
import { type Answer, OperationError, quoteName } from '../answer.ts';
import type { Call, Runtime } from '../runtime.ts';
import type { TurnView } from '../shapes.ts';

/** The share of a call that one of several instances gets. */
export interface Several {
  readonly call: Call;
  /** Limit of its text in the result; undefined: the default. */
  readonly maxChars?: number;
}

/** Of all texts together: a result stays small. */
const ALL_CHARS = 4_000;
const LEAST_CHARS = 200;

/**
 * Runs `work` for all instances that `queries` name at once. A failure is that instance's outcome.
 * @throws {QueryError | OperationError} a name is unknown, ambiguous or repeated; nothing was done
 */
export async function toSeveral(
  runtime: Runtime,
  queries: readonly string[],
  call: Call,
  work: (instance: Instance, share: Several) => Promise<Answer<TurnView>>,
): Promise<Answer<TurnView>> {
  const instances = resolveAll(runtime, queries);
  const maxChars = shareOf(instances.length);
  const progress = new NamedProgress(call.onProgress);
  const answers = await Promise.all(
    instances.map(async (instance) => {
      try {
        return await work(instance, { call: { ...call, onProgress: progress.of(instance.name) }, maxChars });
      } catch (error) {
        return failed(instance.name, error, runtime.words);
      }
    }),
  );
  return together(answers);
}

export function together(answers: readonly Answer<TurnView>[]): Answer<TurnView> {
  return {
    data: {
      instance: [...new Set(answers.map(({ data }) => data.instance))].join(', '),
      outcome: outcomes(answers),
      turns: answers.map(({ data }) => data),
    },
    text: answers.map(({ text }) => text).join('\n\n'),
  };
}

/** @throws {QueryError | OperationError} a name is unknown, ambiguous or repeated */
export function resolveAll(runtime: Runtime, queries: readonly string[]): readonly Instance[] {
  const instances = queries.map((query) => runtime.fleet.resolve(query));
  const twice = instances.find((instance, index) =>
    instances.some((other, at) => at < index && other.key === instance.key),
  );
  if (twice !== undefined)
    throw new OperationError(`${quoteName(twice.name)} is meant twice. Name each instance once.`);
  return instances;
}

export function shareOf(count: number): number {
  return Math.max(LEAST_CHARS, Math.floor(ALL_CHARS / Math.max(1, count)));
}

export function failed(name: string, error: unknown, words: ReaderWords): Answer<TurnView> {
  const reason = sentence(messageIn(words, error), 500);
  return { data: { instance: name, outcome: 'error', reason }, text: `${quoteName(name)}: error: ${reason}` };
}

/** `2 completed, 1 waiting`. */
function outcomes(answers: readonly Answer<TurnView>[]): string {
  const counts = new Map<string, number>();
  for (const { data } of answers) counts.set(data.outcome, (counts.get(data.outcome) ?? 0) + 1);
  return [...counts].map(([outcome, count]) => `${count} ${outcome}`).join(', ');
}

/** Puts the instance's name before each line of text, so that no line can pass for another instance's. */
export class NamedProgress {
  readonly #onText: (text: string) => void;
  #last: string | undefined;

  constructor(onText: (text: string) => void) {
    this.#onText = onText;
  }

  of(name: string): (text: string) => void {
    const head = `[${quoteName(name)}] `;
    const cleaner = new StreamCleaner();
    return (text) => {
      const before = this.#last === name ? '' : `${this.#last === undefined ? '' : '\n'}${head}`;
      this.#last = name;
      this.#onText(before + cleaner.add(text).replaceAll('\n', `\n${head}`));
    };
  }
}
