// The page: the list and, beside it (on a phone: in its place), the session that the address after # names.
import { announce, element, refreshTimes, sessionHref, setText, showText } from './elements.js';
import { makeFleetView, needsYou, sessionKey } from './fleet.js';
import { followLines } from './lines.js';
import { openNewSession, openSession } from './session.js';

const TIMES_MS = 10_000;
const LINK_TEXTS = { connecting: 'Connecting', live: 'Live', lost: 'Not connected' };

const sessionPane = document.getElementById('session');
const linkState = document.getElementById('link-state');
const fleetPane = document.getElementById('fleet');
const fleetView = makeFleetView(fleetPane);
const notice = element('p', { class: 'error', role: 'alert', hidden: true });
const role = element('p', { class: 'read-only', hidden: true });
fleetPane.prepend(notice, role);

let fleet;
let opened;
let openKey;
let lastCount;

followLines('/fleet', {
  onLine(state) {
    fleet = state;
    fleetView.render(state);
    showYou(state);
    showCount(state.sessions.filter(needsYou).length);
  },
  onState(state, reason) {
    linkState.dataset.state = state;
    setText(linkState, LINK_TEXTS[state]);
    const problem = `${reason ?? 'The connection ended.'} Trying again; what you see is the last known state.`;
    showText(notice, state === 'lost' ? problem : '');
  },
});

function showYou({ you }) {
  setText(document.getElementById('you'), you.name);
  const words = [
    you.role !== 'drive' && 'Your role here is "read": you cannot act.',
    !you.all && 'You see only the sessions of this machine.',
  ];
  showText(role, words.filter(Boolean).join(' '));
}

function showCount(count) {
  document.title = count === 0 ? 'opencode-mcp' : `(${count}) opencode-mcp`;
  if (count !== lastCount && (lastCount !== undefined || count > 0))
    announce(count === 0 ? 'Nothing needs you.' : `${count} ${count === 1 ? 'session needs' : 'sessions need'} you.`);
  lastCount = count;
}

/** `#/s/INSTANCE[/SESSION[/REQUEST]]`, or the list alone. */
function route() {
  const [, first, ...rest] = location.hash.split('/');
  const [instance = '', session, request] = rest.map(decodePart);
  const isSession = first === 's' && instance !== '';
  opened?.close();
  opened = undefined;
  document.body.dataset.view = isSession ? 'session' : 'fleet';
  const before = openKey;
  openKey = isSession && session !== undefined ? sessionKey(instance, session) : undefined;
  fleetView.select(openKey);
  if (!isSession) return showNothing(before);
  if (session !== undefined) opened = openSession(sessionPane, { instance, session, request });
  else
    opened = openNewSession(sessionPane, {
      instance,
      // The role comes with the first list. Until then allow it: the node refuses what the role forbids.
      canCreate: fleet?.you.role !== 'read',
      onCreated: (id) => location.replace(sessionHref(instance, id)),
    });
}

function showNothing(before) {
  sessionPane.replaceChildren(element('p', { class: 'quiet centre', text: 'Choose a session to see what it does.' }));
  if (before !== undefined) fleetView.focus(before);
}

function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  (document.body.dataset.view === 'session' ? sessionPane : fleetPane).focus();
});
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.isComposing || event.defaultPrevented || opened === undefined) return;
  location.hash = '#/';
});
window.addEventListener('hashchange', route);
setInterval(() => refreshTimes(document), TIMES_MS);
route();
