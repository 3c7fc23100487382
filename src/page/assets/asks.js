// The card of one request: a permission with its whole command, or questions.
import { diffLines } from './changes.js';
import { announce, element, showText } from './elements.js';
import { postJson } from './lines.js';

/** A new card cannot be pressed for this long: it may have appeared under a finger that meant something else. */
const GUARD_MS = 400;
/** Shown when the node does not let the request be allowed here. */
const NOT_WHOLE = 'Not all of it can be shown here, so it can only be rejected here. Its own terminal shows it whole.';
let cardsMade = 0;

/**
 * `context` has `instance`, `session`, `canDrive` and `onSettled(card)`. Returns the card: `id`, `element`, `summary`, `isSettled`,
 * `settleElsewhere()` and `show()`.
 */
export function makeAskCard(ask, context) {
  const id = `ask-${(cardsMade += 1)}`;
  const heading = element('h3', { id, text: headingOf(ask) });
  const result = element('p', { class: 'result', tabindex: '-1', hidden: true });
  const problem = element('p', { class: 'error', role: 'alert', hidden: true });
  const fields = element('fieldset', { class: 'bare', disabled: true });
  const root = element('section', { class: `ask ask-${ask.kind}`, 'aria-labelledby': id, tabindex: '-1' }, heading);
  if (ask.sessionId !== context.session) root.append(element('p', { class: 'quiet', text: 'A sub-agent asks.' }));
  const card = { id: ask.id, element: root, summary: summaryOf(ask), isSettled: false };

  let pressed;

  function settle(text) {
    if (card.isSettled) return;
    card.isSettled = true;
    const hadFocus = pressed !== undefined || root.contains(document.activeElement);
    root.style.minHeight = `${root.getBoundingClientRect().height}px`;
    root.dataset.settled = 'true';
    fields.remove();
    problem.remove();
    showText(result, text);
    if (hadFocus) result.focus({ preventScroll: true });
    announce(text);
    context.onSettled(card);
  }

  async function respond(body, doneText) {
    // Remembered, since a disabled control loses the focus.
    pressed = root.contains(document.activeElement) ? document.activeElement : undefined;
    fields.disabled = true;
    showText(problem, '');
    try {
      const target = { instance: context.instance, session: ask.sessionId, request: ask.id };
      const answer = await postJson('/respond', { ...target, ...body });
      settle(answer.done ? doneText : `Settled elsewhere. ${answer.text ?? ''}`.trim());
    } catch (error) {
      if (card.isSettled) return;
      fields.disabled = false;
      showText(problem, error.message);
      pressed?.focus({ preventScroll: true });
      pressed = undefined;
    }
  }

  root.append(...(ask.kind === 'permission' ? permissionParts(ask) : []));
  if (context.canDrive) {
    fields.append(...(ask.kind === 'permission' ? permissionFields(ask, respond) : questionFields(ask, respond)));
    setTimeout(() => (fields.disabled = false), GUARD_MS);
  } else if (ask.kind === 'question') root.append(...readQuestions(ask));
  root.append(fields, problem, result);
  return Object.assign(card, {
    settleElsewhere: () => settle('Settled elsewhere.'),
    /** Scrolls it into view, from its top if it is higher than the screen. */
    show: () =>
      root.scrollIntoView({ block: root.offsetHeight > root.closest('.talk').clientHeight ? 'start' : 'nearest' }),
  });
}

function headingOf(ask) {
  if (ask.kind === 'permission') return `Permission: ${ask.permission}`;
  return ask.questions.length === 1 ? 'Question' : `${ask.questions.length} questions`;
}

function summaryOf(ask) {
  if (ask.kind === 'permission') return ask.command ?? ask.patterns.join(', ');
  return ask.questions.map(({ question }) => question).join(' ');
}

function permissionParts({ command, diff, patterns, always, canAllow }) {
  const parts = [element('pre', { class: 'command', text: command ?? patterns.join('\n') })];
  if (command !== undefined && patterns.some((pattern) => pattern !== command))
    parts.push(...listed('It covers', patterns));
  if (diff !== undefined) parts.push(element('div', { class: 'diff' }, ...diffLines(diff.split('\n'))));
  if (canAllow === false) parts.push(element('p', { class: 'error', text: NOT_WHOLE }));
  if (always.length > 0) parts.push(...listed('\u201cAlways\u201d would allow (not offered here)', always));
  return parts;
}

function listed(title, items) {
  const list = element(
    'ul',
    { class: 'patterns' },
    ...items.map((text) => element('li', {}, element('code', { text }))),
  );
  return [element('p', { class: 'quiet', text: title }), list];
}

function permissionFields({ canAllow }, respond) {
  const word = element('input', { type: 'text', name: 'word', autocomplete: 'off', maxlength: '2000' });
  const allow = element('button', { class: 'primary', type: 'button', text: 'Allow once' });
  allow.addEventListener('click', () => void respond({ reply: 'once' }, 'Allowed once.'));
  const reject = element('form', { class: 'reject' });
  reject.append(
    element('label', {}, element('span', { text: 'Why not (optional)' }), word),
    element('button', { type: 'submit', text: 'Reject' }),
  );
  reject.addEventListener('submit', (event) => {
    event.preventDefault();
    const message = word.value.trim();
    void respond({ reply: 'reject', ...(message !== '' && { message }) }, 'Rejected.');
  });
  return [element('div', { class: 'choices' }, canAllow !== false && allow, reject)];
}

function questionFields({ id, questions }, respond) {
  const groups = questions.map((question, at) => makeQuestion(question, `${id}-${at}`));
  const problem = element('p', { class: 'error', role: 'alert', hidden: true, text: 'Answer each question first.' });
  const dismiss = element('button', { type: 'button', text: 'Dismiss' });
  dismiss.addEventListener('click', () => void respond({ reply: 'reject' }, 'Dismissed.'));
  const buttons = element(
    'div',
    { class: 'choices' },
    element('button', { class: 'primary', text: 'Answer' }),
    dismiss,
  );
  const form = element('form', { class: 'questions' }, ...groups.map((group) => group.element), problem, buttons);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const open = groups.find((group) => !group.isOptional && group.answer().length === 0);
    problem.hidden = open === undefined;
    if (open === undefined) void respond({ answers: groups.map((group) => group.answer()) }, 'Answered.');
    else open.focus();
  });
  return [form];
}

/** One question as a group of choices, with a field for another answer if that is allowed. */
function makeQuestion({ header, question, options, multiple, custom, optional }, name) {
  const type = multiple ? 'checkbox' : 'radio';
  const inputs = options.map(({ label }) => element('input', { type, name, value: label }));
  const choices = options.map(({ label, description }, at) => {
    const words = element('span', {}, element('span', { class: 'option', text: label }));
    if (description) words.append(element('span', { class: 'quiet', text: description }));
    return element('label', { class: 'choice' }, inputs[at], words);
  });
  const own = element('input', { type: 'text', autocomplete: 'off', maxlength: '10000' });
  // A single answer is one of the options or the person's own words, not both.
  if (!multiple) {
    own.addEventListener('input', () => own.value.trim() !== '' && inputs.forEach((input) => (input.checked = false)));
    for (const input of inputs) input.addEventListener('change', () => (own.value = ''));
  }
  if (custom) {
    const label = options.length === 0 ? 'Your answer' : 'Your own answer';
    choices.push(element('label', { class: 'own' }, element('span', { text: label }), own));
  }
  const above = [header, optional && 'optional'].filter(Boolean).join(' \u00b7 ');
  const legend = element('legend', {}, above && element('span', { class: 'quiet', text: above }), question);
  return {
    isOptional: optional === true,
    element: element('fieldset', { class: 'question' }, legend, ...choices),
    answer() {
      const chosen = inputs.filter(({ checked }) => checked).map(({ value }) => value);
      return own.value.trim() === '' ? chosen : [...chosen, own.value.trim()];
    },
    focus: () => (inputs[0] ?? own).focus(),
  };
}

function readQuestions({ questions }) {
  return questions.flatMap(({ question, options }) => [
    element('p', { class: 'question-text', text: question }),
    element('ul', {}, ...options.map(({ label }) => element('li', { text: label }))),
  ]);
}
