// The messages of one session. Streamed text changes only its own block, so that a selection elsewhere stays.
import { element, setAttribute, setText, syncChildren, timeElement } from './elements.js';

const TOOL_STATES = { running: 'running', done: 'done', failed: 'failed' };

/** The list of messages; changes are drawn once per frame. */
export function makeTranscript() {
  const list = element('ol', { class: 'messages' });
  let messages = [];
  let isDrawPlanned = false;
  let onDrawn = () => {};

  function plan() {
    if (isDrawPlanned) return;
    isDrawPlanned = true;
    requestAnimationFrame(() => {
      isDrawPlanned = false;
      syncChildren(list, messages, { keyOf: ({ id }) => id, make: makeMessage, update: updateMessage });
      onDrawn();
    });
  }

  return {
    list,
    set onDrawn(listener) {
      onDrawn = listener;
    },
    get isEmpty() {
      return messages.length === 0;
    },
    /** Sets the newest messages. Older ones stay if the two overlap; returns whether they do. */
    setNewest(newest) {
      const at = newest.length === 0 ? -1 : messages.findIndex(({ id }) => id === newest[0].id);
      messages = at < 0 ? newest : [...messages.slice(0, at), ...newest];
      plan();
      return at > 0;
    },
    prepend(older) {
      const known = new Set(messages.map(({ id }) => id));
      messages = [...older.filter(({ id }) => !known.has(id)), ...messages];
      plan();
    },
    /** Returns whether the message is new. */
    put(message) {
      const at = messages.findIndex(({ id }) => id === message.id);
      if (at < 0) messages = [...messages, message];
      else messages = messages.with(at, message);
      plan();
      return at < 0;
    },
    append({ message: id, part: partId, text }) {
      const at = messages.findIndex((one) => one.id === id);
      if (at < 0) return;
      const { parts } = messages[at];
      const place = parts.findIndex((one) => one.id === partId);
      const part = place < 0 ? { id: partId, kind: 'text', text } : { ...parts[place], text: parts[place].text + text };
      const grown = place < 0 ? [...parts, part] : parts.with(place, part);
      messages = messages.with(at, { ...messages[at], parts: grown });
      plan();
    },
  };
}

/** The value that each element shows. Messages and parts are replaced, never changed, so an equal value needs no update. */
const drawn = new WeakMap();

function isDrawn(item, value) {
  if (drawn.get(item) === value) return true;
  drawn.set(item, value);
  return false;
}

function makeMessage({ role, atMs }) {
  const who = role === 'user' ? 'You' : 'Agent';
  const head = element('p', { class: 'message-head' }, element('span', { text: who }), ' ', timeElement(atMs));
  const error = element('p', { class: 'error', hidden: true });
  return element('li', { class: `message from-${role}` }, head, element('div', { class: 'parts' }), error);
}

function updateMessage(item, message) {
  if (isDrawn(item, message)) return;
  const [, parts, error] = item.children;
  const shown = message.parts.filter((part) => part.kind === 'tool' || part.text);
  syncChildren(parts, shown, { keyOf: partKey, make: makePart, update: updatePart });
  const isStopped = message.error?.startsWith('MessageAbortedError') === true;
  error.hidden = !message.error;
  error.className = isStopped ? 'quiet' : 'error';
  setText(error, isStopped ? 'Stopped.' : `Error: ${message.error}`);
}

/** A tool part is a fold only once it has text, so it needs another element then. */
function partKey({ id, kind, text }) {
  return `${kind} ${kind === 'tool' && !text ? 'bare' : ''} ${id}`;
}

function makePart({ kind, text }) {
  if (kind === 'text') return element('div', { class: 'part text' });
  if (kind === 'reasoning') return makeFold('part reasoning', 'Reasoning');
  if (kind === 'tool')
    return text
      ? makeFold('part tool')
      : element('div', { class: 'part tool' }, element('p', {}, element('span', { class: 'fold-title' })));
  return element('p', { class: 'part file' });
}

function makeFold(name, title) {
  const summary = element('summary', {}, element('span', { class: 'fold-title', text: title ?? '' }));
  return element('details', { class: name }, summary, element('div', { class: 'fold-text' }));
}

function updatePart(item, part) {
  if (isDrawn(item, part)) return undefined;
  if (part.kind === 'text') return updateBlocks(item, part.text);
  if (part.kind === 'reasoning') return setText(item.lastElementChild, part.text);
  if (part.kind === 'tool') return updateTool(item, part);
  return setText(item, part.kind === 'file' ? `File: ${part.text}` : part.text);
}

function updateTool(item, { tool, state, title, text }) {
  const summary = item.firstElementChild;
  if (summary.children.length === 1)
    summary.append(' ', element('span', { class: 'tool-title' }), ' ', element('span', { class: 'tool-state' }));
  const [name, what, how] = summary.children;
  setAttribute(item, 'data-state', state);
  setText(name, tool ?? 'tool');
  setText(what, title === tool ? '' : title);
  setText(how, TOOL_STATES[state] ?? '');
  if (text) setText(item.lastElementChild, text);
}

/** Renders paragraphs and fenced code, the part of Markdown that makes an answer readable. */
function updateBlocks(item, text) {
  const blocks = blocksOf(text).map((block, at) => ({ ...block, key: `${at} ${block.isCode}` }));
  syncChildren(item, blocks, {
    keyOf: ({ key }) => key,
    make: ({ isCode }) => element(isCode ? 'pre' : 'div', { class: isCode ? 'code' : 'words' }),
    update(target, block) {
      if (block.isCode) setText(target, block.text);
      else if (target.dataset.text !== block.text) {
        target.dataset.text = block.text;
        target.replaceChildren(...inlineNodes(block.text));
      }
    },
  });
}

function blocksOf(text) {
  const blocks = [];
  let isCode = false;
  let lines = [];
  const end = () => {
    const words = lines.join('\n');
    lines = [];
    if (isCode || words.trim() !== '') blocks.push({ isCode, text: isCode ? words : words.replace(/^\n+|\s+$/g, '') });
  };
  for (const line of text.split('\n')) {
    if (/^\s*```/.test(line)) {
      end();
      isCode = !isCode;
    } else if (!isCode && line.trim() === '') end();
    else lines.push(line);
  }
  if (lines.length > 0) end();
  return blocks;
}

/** `code`, **strong** and headings. */
function inlineNodes(text) {
  const heading = /^#{1,6} (.*)$/.exec(text);
  if (heading !== null) return [element('strong', { text: heading[1] })];
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((piece) => {
    if (piece.length > 2 && piece.startsWith('`')) return element('code', { text: piece.slice(1, -1) });
    if (piece.length > 4 && piece.startsWith('**')) return element('strong', { text: piece.slice(2, -2) });
    return document.createTextNode(piece);
  });
}
