// The scrolling part of a session: its messages, and its requests below them. A view that is at the end stays at the end.
import { element, showText } from './elements.js';
import { fetchLines } from './lines.js';
import { makeTranscript } from './transcript.js';

/** A view this near to the end counts as at the end. */
const NEAR_END_PX = 24;

/** `query` names the session. `act` runs an action and shows why it was refused. */
export function makeTalk({ query, act }) {
  const transcript = makeTranscript();
  const older = element('button', {
    class: 'plain older',
    type: 'button',
    text: 'Show earlier messages',
    hidden: true,
  });
  const newer = element('button', { class: 'newer', type: 'button', text: 'Newest', hidden: true, onclick: toEnd });
  const empty = element('p', { class: 'quiet', hidden: true });
  const cards = element('div', { class: 'asks' });
  const root = element('div', { class: 'talk', tabindex: '0', role: 'region', 'aria-label': 'Conversation' });
  root.append(older, empty, transcript.list, cards);
  let isAtEnd = true;
  let cursor;

  root.addEventListener('scroll', () => {
    isAtEnd = root.scrollHeight - root.scrollTop - root.clientHeight < NEAR_END_PX;
    if (isAtEnd) newer.hidden = true;
  });
  older.addEventListener('click', () => void showOlder());
  transcript.onDrawn = () => {
    showText(empty, transcript.isEmpty ? 'No message yet.' : '');
    keepPlace();
  };

  function toEnd() {
    isAtEnd = true;
    newer.hidden = true;
    root.scrollTop = root.scrollHeight;
  }

  /** Call it after adding something at the end. */
  function keepPlace() {
    if (root.hidden) return;
    if (isAtEnd) toEnd();
    else newer.hidden = false;
  }

  function setCursor(next) {
    cursor = next;
    older.hidden = next === undefined;
  }

  async function showOlder() {
    older.disabled = true;
    await act(async () => {
      const lines = await fetchLines(`/session?${query}&before=${encodeURIComponent(cursor)}`);
      const page = lines.find(({ kind }) => kind === 'messages');
      if (page === undefined) return;
      const fromEndPx = root.scrollHeight - root.scrollTop;
      transcript.prepend(page.messages);
      setCursor(page.older);
      requestAnimationFrame(() => (root.scrollTop = root.scrollHeight - fromEndPx));
    });
    older.disabled = false;
  }

  return {
    element: root,
    /** A button to the end, placed above the message box. */
    newer,
    cards,
    put: (message) => transcript.put(message),
    append: (delta) => transcript.append(delta),
    setNewest({ messages, older: next }) {
      if (!transcript.setNewest(messages)) setCursor(next);
    },
    get isAtEnd() {
      return isAtEnd;
    },
    toEnd,
    keepPlace,
    sayEmpty: (text) => showText(empty, text),
    focus: () => root.focus({ preventScroll: true }),
  };
}
