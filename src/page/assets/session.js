// One session: its transcript as it streams, what it changed, what it asks, and the box that talks to it.
import { makeAskCard } from './asks.js';
import { makeChanges } from './changes.js';
import { makeComposer } from './composer.js';
import { announce, element, sessionHref, setText } from './elements.js';
import { stateText } from './fleet.js';
import { fetchLines, followLines, postJson } from './lines.js';
import { makeTranscript } from './transcript.js';

/** A stream in a hidden tab is closed after this: a browser has six connections to a node, for all its tabs. */
const HIDDEN_MS = 20_000;
/** So near to the end, the end is kept in sight. */
const NEAR_END_PX = 24;
const BUSY = new Set(['busy', 'retrying', 'waiting']);

/** Opens a session in `root`; without `session`, a new one. `close` ends it. */
export function openSession(root, { instance, session, request, canCreate, onCreated }) {
  const query = new URLSearchParams({ instance, session: session ?? '' }).toString();
  const title = element('h2', {
    class: 'session-title',
    tabindex: '-1',
    text: session === undefined ? 'New session' : '\u2026',
  });
  const place = element('p', { class: 'session-place' });
  const stop = element('button', { class: 'stop', type: 'button', text: 'Stop', hidden: true, onclick: stopTurn });
  const toggle = element('button', {
    class: 'plain',
    type: 'button',
    'aria-expanded': 'false',
    'aria-controls': 'changes',
    text: 'Changes',
    onclick: toggleChanges,
  });
  // What the stream says of itself comes and goes with it; why an action failed stays until the next one.
  const problem = element('p', { class: 'error', role: 'alert', hidden: true });
  const refused = element('p', { class: 'error', role: 'alert', hidden: true });
  const back = element('a', { class: 'back', href: '#/', text: 'Back', 'aria-label': 'Back to all sessions' });
  const fresh = element('a', {
    class: 'button plain',
    href: sessionHref(instance),
    text: 'New',
    'aria-label': 'New session',
  });
  const actions = element('div', { class: 'actions' }, toggle, fresh, stop);
  const head = element('header', { class: 'session-head' }, back, title, place, actions, problem, refused);

  const transcript = makeTranscript();
  const older = element('button', {
    class: 'plain older',
    type: 'button',
    text: 'Show earlier messages',
    hidden: true,
    onclick: showOlder,
  });
  const empty = element('p', {
    class: 'quiet',
    text: session === undefined ? `Write the first message to ${instance}.` : '',
  });
  const cards = element('div', { class: 'asks' });
  const talk = element(
    'div',
    { class: 'talk', tabindex: '0', role: 'region', 'aria-label': 'Conversation' },
    older,
    empty,
    transcript.list,
    cards,
  );
  const newer = element('button', { class: 'newer', type: 'button', text: 'Newest', hidden: true, onclick: toEnd });
  const changes = makeChanges(query, (count) => setText(toggle, count === 0 ? 'Changes' : `Changes (${count})`));
  const status = element('p', { class: 'status', 'data-state': 'connecting' });
  const composer = makeComposer({ instance, session, onSent: sent });
  const foot = element('footer', { class: 'session-foot' }, newer, status, composer.element);
  root.replaceChildren(head, talk, changes.element, foot);

  const asks = new Map();
  let state;
  let canDrive = canCreate && session === undefined;
  let wanted = request;
  let isAtEnd = true;
  let cursor;
  let stream;
  let hiddenTimer;
  let ended = false;

  function sent(answer) {
    if (session === undefined) onCreated(answer.session);
    else toEnd();
  }

  async function stopTurn() {
    stop.disabled = true;
    await act(async () => announce((await postJson('/abort', { instance, session })).text));
    stop.disabled = false;
  }

  /** Runs what may be refused, and shows why it was. */
  async function act(run) {
    refused.hidden = true;
    try {
      await run();
    } catch (error) {
      if (ended) return;
      setText(refused, error.message);
      refused.hidden = false;
    }
  }

  function toggleChanges() {
    const isOpen = toggle.getAttribute('aria-expanded') !== 'true';
    toggle.setAttribute('aria-expanded', String(isOpen));
    changes.element.hidden = !isOpen;
    talk.hidden = isOpen;
    if (isOpen) void changes.refresh();
    else if (isAtEnd) toEnd();
  }

  async function showOlder() {
    older.disabled = true;
    await act(async () => {
      const lines = await fetchLines(`/session?${query}&before=${encodeURIComponent(cursor)}`);
      const page = lines.find(({ kind }) => kind === 'messages');
      if (page === undefined) return;
      const fromEndPx = talk.scrollHeight - talk.scrollTop;
      transcript.prepend(page.messages);
      setCursor(page.older);
      requestAnimationFrame(() => (talk.scrollTop = talk.scrollHeight - fromEndPx));
    });
    older.disabled = false;
  }

  function setCursor(next) {
    cursor = next;
    older.hidden = next === undefined;
  }

  function toEnd() {
    isAtEnd = true;
    newer.hidden = true;
    talk.scrollTop = talk.scrollHeight;
  }

  talk.addEventListener('scroll', () => {
    isAtEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < NEAR_END_PX;
    if (isAtEnd) newer.hidden = true;
  });
  transcript.onDrawn = keepPlace;

  function keepPlace() {
    empty.hidden = !transcript.isEmpty || session === undefined;
    setText(empty, empty.hidden ? empty.textContent : 'No message yet.');
    if (talk.hidden) return;
    if (isAtEnd) toEnd();
    else newer.hidden = false;
  }

  const handlers = {
    session(line) {
      setText(title, line.title || 'Untitled session');
      setText(place, `${instance} \u00b7 ${line.directory}`);
      canDrive = line.canDrive;
      problem.hidden = true;
      setState(line);
    },
    messages(line) {
      if (!transcript.setNewest(line.messages)) setCursor(line.older);
    },
    message({ message }) {
      if (transcript.put(message) && message.role === 'user') dropFolded();
    },
    text: (line) => transcript.append(line),
    asks: (line) => setAsks(line.asks),
    state: setState,
    error(line) {
      setText(problem, line.text);
      problem.hidden = false;
    },
  };

  function setState(line) {
    const before = state;
    state = line.state;
    status.dataset.state = state;
    setText(status, [stateText(state), line.reason].filter(Boolean).join(': '));
    composer.setAllowed(canDrive, state);
    const hadFocus = document.activeElement === stop;
    stop.hidden = !canDrive || !BUSY.has(state);
    if (hadFocus && stop.hidden) talk.focus({ preventScroll: true });
    if (before === state) return;
    if (before !== undefined) announce(`This session: ${stateText(state)}`);
    if (!BUSY.has(state) || before === undefined) void changes.refresh();
  }

  function setAsks(list) {
    const ids = new Set(list.map(({ id }) => id));
    for (const card of asks.values()) if (!ids.has(card.id)) card.settleElsewhere();
    const fresh = list.filter(({ id }) => !asks.has(id));
    if (fresh.length > 0) dropFolded();
    for (const ask of fresh) {
      const card = makeAskCard(ask, { instance, session, canDrive, onSettled: tidy });
      asks.set(ask.id, card);
      cards.append(card.element);
      if (wanted === undefined) announce(`${card.element.firstElementChild.textContent}: ${card.summary}`);
    }
    if (fresh.length > 0) keepPlace();
    if (wanted !== undefined) showWanted(asks.get(wanted));
    else if (fresh.length > 0 && isAtEnd) requestAnimationFrame(() => asks.get(fresh[0].id).show());
  }

  /** The link led to one request: that one, or that it is settled by now. */
  function showWanted(card) {
    wanted = undefined;
    if (card === undefined) {
      cards.append(element('p', { class: 'result', text: 'The request of this link is settled already.' }));
      announce('The request of this link is settled already.');
    }
    requestAnimationFrame(() => {
      toEnd();
      card?.show();
      card?.element.focus({ preventScroll: true });
    });
  }

  /** Settled cards keep their height while another can be pressed, so that none moves under a finger. */
  function tidy() {
    if ([...asks.values()].some(({ isSettled }) => !isSettled)) return;
    for (const card of asks.values()) card.element.classList.add('folded');
    keepPlace();
  }

  function dropFolded() {
    for (const folded of cards.querySelectorAll('.folded')) {
      if (folded.contains(document.activeElement)) talk.focus({ preventScroll: true });
      folded.remove();
    }
  }

  function connect() {
    stream ??= followLines(`/session?${query}`, {
      onLine: (line) => handlers[line.kind]?.(line),
      onState(link, reason) {
        // A stream that ends has said why.
        if (link === 'lost' && reason !== undefined) handlers.error({ text: `${reason} Trying again.` });
        else if (link === 'live' && state !== undefined) problem.hidden = true;
      },
    });
  }

  function onVisibility() {
    clearTimeout(hiddenTimer);
    if (document.visibilityState === 'visible') connect();
    else
      hiddenTimer = setTimeout(() => {
        stream?.close();
        stream = undefined;
      }, HIDDEN_MS);
  }

  if (session === undefined) {
    actions.hidden = true;
    setText(place, instance);
    status.hidden = true;
    composer.setAllowed(canDrive);
    composer.focus();
  } else {
    document.addEventListener('visibilitychange', onVisibility);
    connect();
    if (request === undefined) title.focus({ preventScroll: true });
  }
  return {
    close() {
      ended = true;
      document.removeEventListener('visibilitychange', onVisibility);
      clearTimeout(hiddenTimer);
      stream?.close();
      changes.close();
    },
  };
}
