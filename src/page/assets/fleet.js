// The list of all sessions: needs you, working, done; below it instances without a session, machines and notes.
import { element, sessionHref, setAttribute, setNodeTime, setText, setTime, syncChildren } from './elements.js';

/** A button shows the rest. */
const DONE_SHOWN = 12;
const RUNNING = new Set(['busy', 'retrying']);
const STATE_WORDS = {
  waiting: 'waits for you',
  busy: 'working',
  retrying: 'retrying',
  idle: 'done',
  failed: 'failed',
  interrupted: 'stopped',
};

/** The words for a session's state. */
export function stateText(state) {
  return STATE_WORDS[state] ?? String(state);
}

export function needsYou({ state, waiting }) {
  return state === 'waiting' || waiting.length > 0;
}

/** Builds the list once; `render` then changes only differences. */
export function makeFleetView(root) {
  const groups = [
    makeGroup('needs', 'Needs you', 'Nothing needs you.'),
    makeGroup('working', 'Working', 'Nothing is running.'),
    makeGroup('done', 'Done', 'Nothing finished lately.'),
  ];
  const loading = element('p', { class: 'quiet', text: 'Asking the machines\u2026' });
  const elsewhere = makeElsewhere();
  root.append(loading);
  let last;
  let selected;

  function render() {
    if (last === undefined) return;
    const sorted = sortedGroups(last.sessions);
    const focused = document.activeElement?.closest('.row')?.dataset.key;
    groups.forEach((group, at) => group.render(sorted[at], selected));
    // A row that moved to another group lost the focus.
    if (focused !== undefined && document.activeElement === document.body)
      rowLink(focused)?.focus({ preventScroll: true });
    elsewhere.render(last);
  }

  return {
    render(fleet) {
      setNodeTime(fleet.at);
      if (last === undefined) loading.replaceWith(...groups.map(({ section }) => section), elsewhere.section);
      last = fleet;
      render();
    },
    select(key) {
      selected = key;
      render();
    },
    /** Returns the focus to a row, or to the list. */
    focus(key) {
      (rowLink(key) ?? root).focus();
    },
  };

  function rowLink(key) {
    return root.querySelector(`[data-key="${CSS.escape(key)}"] a`);
  }
}

/** Identifies a session on this page. */
export function sessionKey(instance, id) {
  return JSON.stringify([instance, id]);
}

/** Waiting sessions, longest first; running ones, in an order that stays; ended ones, latest first. */
function sortedGroups(sessions) {
  const oldestFirst = (one, other) => one.sinceMs - other.sinceMs || (one.id < other.id ? -1 : 1);
  return [
    sessions.filter(needsYou).toSorted(oldestFirst),
    sessions
      .filter((session) => !needsYou(session) && RUNNING.has(session.state))
      .toSorted((one, other) => compareTexts(one, other)),
    sessions
      .filter((session) => !needsYou(session) && !RUNNING.has(session.state))
      .toSorted((one, other) => oldestFirst(other, one)),
  ];
}

function compareTexts(one, other) {
  const textOf = ({ host, directory, id }) => `${host}\n${directory}\n${id}`;
  return textOf(one) < textOf(other) ? -1 : 1;
}

function makeGroup(name, title, nothing) {
  const count = element('span', { class: 'count' });
  const list = element('ul', { class: 'rows' });
  const empty = element('p', { class: 'quiet', text: nothing });
  const more = element('button', { class: 'plain more', type: 'button', hidden: true, onclick: showAll });
  const id = `group-${name}`;
  const heading = element('h2', { id }, title, ' ', count);
  const section = element(
    'section',
    { class: `group group-${name}`, 'aria-labelledby': id },
    heading,
    empty,
    list,
    more,
  );
  let sessions = [];
  let selected;
  let isWhole = name !== 'done';

  function showAll() {
    isWhole = true;
    const next = list.children.length;
    render();
    list.children[next]?.querySelector('a').focus();
  }

  function render() {
    setText(count, sessions.length === 0 ? '' : String(sessions.length));
    empty.hidden = sessions.length > 0;
    const shown = isWhole ? sessions : sessions.slice(0, DONE_SHOWN);
    more.hidden = shown.length === sessions.length;
    setText(more, `Show ${sessions.length - shown.length} more`);
    syncChildren(list, shown, {
      keyOf: ({ instance, id }) => sessionKey(instance, id),
      make: makeRow,
      update: (row, session) => updateRow(row, session, selected),
    });
  }

  return {
    section,
    render(next, key) {
      sessions = next;
      selected = key;
      render();
    },
  };
}

function makeRow() {
  const parts = ['title', 'place', 'state', 'asks'].map((name) => element('span', { class: `row-${name}` }));
  const [title, place, state, asks] = parts;
  place.append(element('span', { class: 'host' }), ' ', element('span', { class: 'directory' }));
  const head = element('span', { class: 'row-head' }, title, element('time'));
  return element('li', { class: 'row' }, element('a', {}, head, place, state, asks));
}

function updateRow(row, session, selected) {
  const link = row.firstElementChild;
  const { instance, id, title, host, directory, state, reason, sinceMs, waiting, parent } = session;
  setAttribute(link, 'href', sessionHref(instance, id, waiting[0]?.id));
  setAttribute(link, 'aria-current', sessionKey(instance, id) === selected && 'page');
  setAttribute(row, 'data-state', state);
  setText(row.querySelector('.row-title'), title || 'Untitled session');
  setTime(row.querySelector('time'), sinceMs);
  setText(row.querySelector('.host'), host);
  setText(row.querySelector('.directory'), directory);
  const words = [parent !== undefined && 'sub-agent', stateText(state), reason].filter(Boolean);
  setText(row.querySelector('.row-state'), words.join(' \u00b7 '));
  syncChildren(row.querySelector('.row-asks'), waiting, {
    keyOf: (one) => one.id,
    make: () => element('span', { class: 'row-ask' }, element('span', { class: 'ask-kind' }), ' ', element('span')),
    update(ask, { kind, text }) {
      setAttribute(ask, 'data-kind', kind);
      setText(ask.firstElementChild, kind === 'permission' ? 'Permission' : 'Question');
      setText(ask.lastElementChild, text);
    },
  });
}

/** Shown while no instance is found. */
const FIRST_STEPS =
  'No OpenCode found yet: start one with opencode-connected, or run opencode-mcp doctor to see what is missing.';

/** Instances without a session, machines, and the node's notes. */
function makeElsewhere() {
  const instances = element('ul', { class: 'small-list' });
  const machines = element('ul', { class: 'small-list' });
  const notes = element('ul', { class: 'small-list' });
  const parts = [
    ['No session here', instances],
    ['Machines', machines],
    ['Notes', notes],
  ].map(([title, list]) => element('section', { hidden: true }, element('h3', { text: title }), list));
  const first = element('p', { class: 'quiet', text: FIRST_STEPS, hidden: true });
  const section = element('div', { class: 'elsewhere' }, first, ...parts);

  return {
    section,
    render(fleet) {
      const used = new Set(fleet.sessions.map(({ instance }) => instance));
      const idle = fleet.instances.filter(({ name }) => !used.has(name));
      syncChildren(instances, idle, { keyOf: ({ name }) => name, make: makeInstance, update: updateInstance });
      syncChildren(machines, fleet.machines, { keyOf: ({ host }) => host, make: makeMachine, update: updateMachine });
      syncChildren(notes, fleet.notes, {
        keyOf: (note) => note,
        make: (note) => element('li', { text: note }),
      });
      first.hidden = fleet.instances.length > 0;
      parts[0].hidden = idle.length === 0;
      parts[1].hidden = fleet.machines.every(({ state }) => state === 'ok') && fleet.machines.length < 2;
      parts[2].hidden = fleet.notes.length === 0;
    },
  };
}

function makeInstance({ name }) {
  const link = element('a', { href: sessionHref(name), text: name });
  return element('li', {}, link, ' ', element('span', { class: 'directory' }), ' ', element('span', { class: 'why' }));
}

function updateInstance(row, { host, directory, state, reason, version }) {
  setText(row.querySelector('.directory'), directory ?? '');
  setText(row.querySelector('.why'), [host, version, state, reason].filter(Boolean).join(' \u00b7 '));
}

function makeMachine({ host }) {
  return element('li', {}, element('span', { class: 'host', text: host }), ' ', element('span', { class: 'why' }));
}

function updateMachine(row, { state, reason }) {
  setAttribute(row, 'data-state', state);
  setText(row.querySelector('.why'), state === 'ok' ? 'online' : `offline${reason ? `: ${reason}` : ''}`);
}
