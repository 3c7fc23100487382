// The only place that makes elements. Remote text goes into text nodes only: this page has no innerHTML.

/** `element('p', { class: 'x', onclick }, 'text', child)`. Undefined and false are left out; `text` and strings become text nodes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name === 'text') made.append(String(value));
    else made.setAttribute(name, value === true ? '' : String(value));
  }
  made.append(...children.filter((child) => child !== undefined && child !== false && child !== ''));
  return made;
}

/** Writes only a difference, so that a selection and a screen reader's position survive. */
export function setText(target, text) {
  const words = text ?? '';
  if (target.textContent !== words) target.textContent = words;
}

/** Shows a text, or hides its element if the text is empty. */
export function showText(target, text) {
  setText(target, text);
  target.hidden = text === '';
}

export function setAttribute(target, name, value) {
  if (value === undefined || value === false) target.removeAttribute(name);
  else if (target.getAttribute(name) !== String(value)) target.setAttribute(name, String(value));
}

/** Gives `parent` one child per item, in order. A key keeps its element, which is moved only if necessary: moving loses the focus. */
export function syncChildren(parent, items, { keyOf, make, update }) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    let child = old.get(key);
    old.delete(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    update?.(child, item);
    return child;
  });
  for (const gone of old.values()) gone.remove();
  let place = parent.firstElementChild;
  for (const child of wanted) {
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
}

/** The node's clock minus this device's. */
let clockOffsetMs = 0;

/** Takes the node's time, so that a device with a wrong clock shows right ages. */
export function setNodeTime(atMs) {
  clockOffsetMs = atMs - Date.now();
}

/** A `<time>` that shows an age; `refreshTimes` updates it. */
export function timeElement(atMs) {
  const made = element('time');
  setTime(made, atMs);
  return made;
}

export function setTime(target, atMs) {
  const date = new Date(atMs);
  if (Number.isNaN(date.getTime())) return;
  setAttribute(target, 'datetime', date.toISOString());
  setAttribute(target, 'title', date.toLocaleString());
  setText(target, agoText(Date.now() + clockOffsetMs - atMs));
}

export function refreshTimes(root) {
  for (const time of root.querySelectorAll('time[datetime]')) setTime(time, Date.parse(time.dateTime));
}

function agoText(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return 'just now';
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h`;
  return `${Math.floor(minutes / (24 * 60))} days`;
}

/** Has a screen reader say it once. */
export function announce(text) {
  setText(document.getElementById('announcer'), text);
}

/** The address of a session, of a request in it, or (without a session) of a new session. */
export function sessionHref(instance, session, request) {
  const parts = [instance, session, request].filter((part) => part !== undefined);
  return `#/s/${parts.map(encodeURIComponent).join('/')}`;
}
