import { safeToShow } from '../../base/plain-text.ts';
import type { AskPerson, Form, PersonAnswer } from '../../operations/runtime.ts';
import type { AskLine } from './ask-line.ts';

/** Mistyped answers before the form counts as dismissed. */
const MAX_TRIES = 20;
const REJECT = 'reject';

/** Asks the person in the terminal, field by field. Ctrl-C and Ctrl-D dismiss the form. */
export function formAsker(askLine: AskLine, tell: (text: string) => void): AskPerson {
  return async (form, { timeoutMs, signal }) => {
    const over = AbortSignal.any([signal, AbortSignal.timeout(Math.min(Math.ceil(timeoutMs), 2 ** 31 - 1))]);
    tell(`\n${form.message}\n`);
    const fields: Record<string, string> = {};
    for (const [name, field] of Object.entries(form.fields)) {
      // The optional field is a message to the agent, which goes with a rejection.
      if (!form.required.includes(name) && !Object.values(fields).includes(REJECT)) continue;
      const answer = await askField(field, form.required.includes(name), { askLine, tell, signal: over });
      if (answer === undefined) return over.aborted ? LATE : DISMISSED;
      fields[name] = answer;
    }
    return { kind: 'accepted', fields };
  };
}

const LATE: PersonAnswer = { kind: 'late' };
const DISMISSED: PersonAnswer = { kind: 'dismissed' };

interface Asking {
  readonly askLine: AskLine;
  readonly tell: (text: string) => void;
  readonly signal: AbortSignal;
}

async function askField(
  { title, description, choices, isList }: Form['fields'][string],
  isRequired: boolean,
  { askLine, tell, signal }: Asking,
): Promise<string | undefined> {
  const list = (choices ?? []).map((choice, index) => `  ${index + 1}  ${choice}\n`).join('');
  tell(`${title}${description === undefined ? '' : `\n${description}`}\n${list}`);
  const words = isRequired ? 'your words' : 'your words, or Enter';
  const hint = choices !== undefined ? 'number or word' : isList === true ? 'an empty line ends it' : words;
  const lines: string[] = [];
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const line = await askLine(`${hint} (Ctrl-D leaves it open)> `, signal);
    if (line === undefined) return undefined;
    const text = safeToShow(line).trim();
    if (isList === true && text !== '') lines.push(text);
    else if (isList === true && lines.length > 0) return lines.join('\n');
    else if (text === '' && !isRequired) return '';
    else if (choices === undefined && text !== '') return text;
    else {
      const chosen = choices && chosenOf(text, choices);
      if (chosen !== undefined) return chosen;
    }
  }
  return undefined;
}

/** By its whole text, its number, or an unambiguous beginning. */
export function chosenOf(text: string, choices: readonly string[]): string | undefined {
  if (text === '') return undefined;
  const wanted = text.toLowerCase();
  const same = choices.filter((choice) => choice.toLowerCase() === wanted);
  if (same.length > 0) return choices.includes(text) ? text : same.length === 1 ? same[0] : undefined;
  if (/^\d+$/.test(text)) return choices[Number(text) - 1];
  const begun = choices.filter((choice) => choice.toLowerCase().startsWith(wanted));
  return begun.length === 1 ? begun[0] : undefined;
}
