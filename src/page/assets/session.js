// One session: its live transcript, its changes, its requests and the message box.
import { makeAskList } from './ask-list.js';
import { makeChanges } from './changes.js';
import { makeComposer } from './composer.js';
import { announce, element, sessionHref, setText, showText } from './elements.js';
import { stateText } from './fleet.js';
import { followLines, postJson } from './lines.js';
import { makeTalk } from './talk.js';

/** After this time a hidden tab closes its stream: all tabs of a browser share six connections to a node. */
const HIDDEN_MS = 20_000;
const BUSY = new Set(['busy', 'retrying', 'waiting']);

/** Shows a session in `root` until `close`. */
export function openSession(root, { instance, session, request }) {
  const query = new URLSearchParams({ instance, session }).toString();
  const head = makeHead(instance, { stopTurn, toggleChanges });
  const talk = makeTalk({ query, act: head.act });
  const asks = makeAskList(talk, { instance, session, wanted: request });
  const changes = makeChanges(query, head.setChanges);
  const status = element('p', { class: 'status', 'data-state': 'connecting' });
  const composer = makeComposer({ instance, session, onSent: talk.toEnd });
  const foot = element('footer', { class: 'session-foot' }, talk.newer, status, composer.element);
  root.replaceChildren(head.element, talk.element, changes.element, foot);
  let state;
  let canDrive = false;

  const handlers = {
    session(line) {
      canDrive = line.canDrive;
      head.setTitle(line.title || 'Untitled session', line.directory);
      head.setProblem('');
      setState(line);
    },
    messages: (line) => talk.setNewest(line),
    message({ message }) {
      if (talk.put(message) && message.role === 'user') asks.dropFolded();
    },
    text: (line) => talk.append(line),
    asks: (line) => asks.set(line.asks, canDrive),
    state: setState,
    error: ({ text }) => head.setProblem(text),
  };

  function setState({ state: next, reason }) {
    const before = state;
    state = next;
    status.dataset.state = state;
    setText(status, [stateText(state), reason].filter(Boolean).join(': '));
    composer.setAllowed(canDrive, state);
    if (head.setStoppable(canDrive && BUSY.has(state))) talk.focus();
    if (before === state) return;
    if (before !== undefined) announce(`This session: ${stateText(state)}`);
    if (!BUSY.has(state) || before === undefined) void changes.refresh();
  }

  async function stopTurn() {
    announce((await postJson('/abort', { instance, session })).text);
  }

  function toggleChanges(isOpen) {
    changes.element.hidden = !isOpen;
    talk.element.hidden = isOpen;
    if (isOpen) void changes.refresh();
    else if (talk.isAtEnd) talk.toEnd();
  }

  const follow = followInSight(`/session?${query}`, {
    onLine: (line) => handlers[line.kind]?.(line),
    onState(link, reason) {
      // Without a reason here, the stream's last line was an `error` that gave it.
      if (link === 'lost' && reason !== undefined) head.setProblem(`${reason} Trying again.`);
      else if (link === 'live' && state !== undefined) head.setProblem('');
    },
  });
  if (request === undefined) head.focus();
  return {
    close() {
      follow.close();
      changes.close();
    },
  };
}

/** A new session, which its first message creates. */
export function openNewSession(root, { instance, canCreate, onCreated }) {
  const head = makeHead(instance, {});
  const talk = makeTalk({ query: '', act: head.act });
  const composer = makeComposer({ instance, onSent: (answer) => onCreated(answer.session) });
  head.setTitle('New session');
  talk.sayEmpty(`Write the first message to ${instance}.`);
  composer.setAllowed(canCreate, 'idle');
  root.replaceChildren(head.element, talk.element, element('footer', { class: 'session-foot' }, composer.element));
  composer.focus();
  return { close() {} };
}

/** Title, place and buttons. A new session has no `stopTurn`, and gets no buttons. */
function makeHead(instance, { stopTurn, toggleChanges }) {
  const back = element('a', { class: 'back', href: '#/', text: 'Back', 'aria-label': 'Back to all sessions' });
  const title = element('h2', { class: 'session-title', tabindex: '-1', text: '\u2026' });
  const place = element('p', { class: 'session-place', text: instance });
  const toggle = element('button', { class: 'plain', type: 'button', text: 'Changes' });
  toggle.setAttribute('aria-expanded', 'false');
  toggle.setAttribute('aria-controls', 'changes');
  const fresh = element('a', { class: 'button plain', href: sessionHref(instance), text: 'New' });
  fresh.setAttribute('aria-label', 'New session');
  const stop = element('button', { class: 'stop', type: 'button', text: 'Stop', hidden: true });
  const actions = element('div', { class: 'actions', hidden: stopTurn === undefined }, toggle, fresh, stop);
  // An error of the stream disappears when the stream is back; an error of an action stays until the next action.
  const problem = element('p', { class: 'error', role: 'alert', hidden: true });
  const refused = element('p', { class: 'error', role: 'alert', hidden: true });

  async function act(run) {
    showText(refused, '');
    try {
      await run();
    } catch (error) {
      showText(refused, error.message);
    }
  }

  toggle.addEventListener('click', () => {
    const isOpen = toggle.getAttribute('aria-expanded') !== 'true';
    toggle.setAttribute('aria-expanded', String(isOpen));
    toggleChanges(isOpen);
  });
  stop.addEventListener('click', async () => {
    if (stop.ariaDisabled === 'true') return;
    // `aria-disabled`, since a disabled button would lose the focus.
    stop.ariaDisabled = 'true';
    await act(stopTurn);
    stop.ariaDisabled = 'false';
  });

  return {
    element: element('header', { class: 'session-head' }, back, title, place, actions, problem, refused),
    act,
    focus: () => title.focus({ preventScroll: true }),
    setTitle(text, directory) {
      setText(title, text);
      setText(place, [instance, directory].filter(Boolean).join(' \u00b7 '));
    },
    setChanges: (count) => setText(toggle, count === 0 ? 'Changes' : `Changes (${count})`),
    setProblem: (text) => showText(problem, text),
    /** Returns whether hiding the button lost the focus. */
    setStoppable(isStoppable) {
      const hadFocus = document.activeElement === stop;
      stop.hidden = !isStoppable;
      return hadFocus && !isStoppable;
    },
  };
}

/** Follows a stream while the tab is visible, and for `HIDDEN_MS` after. */
function followInSight(path, listeners) {
  let timer;
  let stream = followLines(path, listeners);

  function letGo() {
    stream?.close();
    stream = undefined;
  }

  function look() {
    clearTimeout(timer);
    if (document.visibilityState === 'visible') stream ??= followLines(path, listeners);
    else timer = setTimeout(letGo, HIDDEN_MS);
  }

  document.addEventListener('visibilitychange', look);
  return {
    close() {
      document.removeEventListener('visibilitychange', look);
      clearTimeout(timer);
      letGo();
    },
  };
}
