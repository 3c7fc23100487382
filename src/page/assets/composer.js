// The message box. A text stays until the node accepts it. Sending the same text again keeps its request id, so it arrives once.
import { announce, element, setText, showText } from './elements.js';
import { newRequestId, postJson } from './lines.js';

const WORKS = 'It is working: send when it is done, or stop it first.';
/** Why nothing can be sent now, by state. */
const BUSY_HINTS = { busy: WORKS, retrying: WORKS, waiting: 'Answer its request first, or stop it.' };
const READ_ONLY = 'Your role here is "read": you cannot send.';

/** `onSent` gets the node's answer to an accepted message. */
export function makeComposer({ instance, session, onSent }) {
  const draftKey = `draft ${JSON.stringify([instance, session ?? null])}`;
  const text = element('textarea', {
    rows: '1',
    name: 'message',
    autocomplete: 'off',
    placeholder: 'Write to the agent',
    'aria-label': 'Message',
    'aria-describedby': 'hint',
  });
  const button = element('button', { class: 'primary', type: 'submit', text: 'Send' });
  const hint = element('p', { class: 'hint', id: 'hint' });
  const problem = element('p', { class: 'error', role: 'alert', hidden: true });
  const box = element('div', { class: 'box' }, text, button);
  const form = element('form', { class: 'composer', hidden: true }, problem, box, hint);
  const readOnly = element('p', { class: 'read-only', hidden: true, text: READ_ONLY });
  let request = { text: '', id: '' };
  let isBusy = false;
  let isSending = false;

  text.value = sessionStorage.getItem(draftKey) ?? '';
  text.addEventListener('input', () => {
    sessionStorage.setItem(draftKey, text.value);
    fit();
  });
  text.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.isComposing || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void send();
  });

  function fit() {
    text.style.height = 'auto';
    text.style.height = `${text.scrollHeight + 2}px`;
  }

  async function send() {
    const message = text.value.trim();
    if (message === '' || isBusy || isSending) return;
    if (request.text !== message) request = { text: message, id: newRequestId() };
    setSending(true);
    showText(problem, '');
    try {
      const answer = await postJson('/send', { instance, session: session ?? null, message, requestId: request.id });
      request = { text: '', id: '' };
      text.value = '';
      sessionStorage.removeItem(draftKey);
      fit();
      announce('Sent.');
      onSent(answer);
    } catch (error) {
      showText(problem, `Not sent. ${error.message}`);
    }
    setSending(false);
  }

  function setSending(isOn) {
    isSending = isOn;
    text.readOnly = isOn;
    showBlocked();
  }

  /** `aria-disabled`, since a disabled button would lose the focus. */
  function showBlocked() {
    button.ariaDisabled = String(isSending || isBusy);
  }

  return {
    element: element('div', {}, readOnly, form),
    focus: () => text.focus({ preventScroll: true }),
    /** While the session is busy nothing can be sent; the typed text stays. */
    setAllowed(canDrive, state) {
      isBusy = Object.hasOwn(BUSY_HINTS, state);
      showBlocked();
      readOnly.hidden = canDrive;
      if (form.hidden === canDrive) {
        form.hidden = !canDrive;
        fit();
      }
      const keys = /Mac|iP(?:hone|ad)/.test(navigator.userAgent) ? '\u2318 Enter' : 'Ctrl+Enter';
      setText(hint, isBusy ? BUSY_HINTS[state] : `${keys} sends.`);
      hint.classList.toggle('keys', !isBusy);
    },
  };
}
