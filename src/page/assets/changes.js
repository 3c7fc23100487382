// The files that a session changed, as diffs. Added and removed lines differ by sign, bar and element, not only by color.
import { element, showText } from './elements.js';
import { fetchJson } from './lines.js';

/** Files that are open at first. */
const OPEN_FILES = 3;
const MAX_LINES = 1500;

/** The panel of one session. `onCount` gets the number of changed files. */
export function makeChanges(query, onCount) {
  const root = element('div', { class: 'changes', id: 'changes', hidden: true });
  const note = element('p', { class: 'quiet', text: 'Asking for the changes\u2026' });
  const files = element('div');
  root.append(element('h3', { class: 'sr-only', text: 'Changes' }), note, files);
  let lastText;
  let asking;

  async function refresh() {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    try {
      const changes = await fetchJson(`/changes?${query}`, signal);
      if (signal.aborted) return;
      const text = JSON.stringify(changes);
      if (text === lastText) return;
      lastText = text;
      render(changes);
    } catch (error) {
      if (signal.aborted) return;
      // The next answer clears it, even an equal one.
      lastText = undefined;
      showText(note, error.message);
    }
  }

  function render(changes) {
    const open = new Map([...files.children].map((file) => [file.dataset.path, file.open]));
    files.replaceChildren(
      ...changes.files.map((file, at) =>
        makeFile(file, open.get(file.path) ?? (at < OPEN_FILES && file.patch !== undefined)),
      ),
    );
    const rest = changes.more > 0 ? `${changes.more} more files are not shown.` : '';
    showText(note, changes.files.length === 0 ? 'Nothing changed.' : rest);
    onCount(changes.files.length + changes.more);
  }

  return { element: root, refresh, close: () => asking?.abort() };
}

function makeFile({ path, added, removed, patch }, isOpen) {
  const counts = element(
    'span',
    { class: 'counts' },
    element('span', { class: 'added', text: `+${added}` }),
    ' ',
    element('span', { class: 'removed', text: `\u2212${removed}` }),
  );
  const summary = element('summary', {}, element('span', { class: 'path', text: path }), ' ', counts);
  const lines = patch === undefined ? [] : patch.replace(/\n$/, '').split('\n');
  const body = element('div', { class: 'diff' }, ...diffLines(lines.slice(0, MAX_LINES)));
  if (lines.length === 0) body.append(element('p', { class: 'quiet', text: 'No lines to show.' }));
  if (lines.length > MAX_LINES)
    body.append(element('p', { class: 'quiet', text: `${lines.length - MAX_LINES} more lines are not shown.` }));
  return element('details', { class: 'file', open: isOpen, 'data-path': path }, summary, body);
}

/** Lines before the first hunk are the file's header; within a hunk, `---` is a removed line. */
export function diffLines(lines) {
  const firstHunk = lines.findIndex((line) => line.startsWith('@@'));
  return lines.map((text, at) => {
    if (at < firstHunk) return element('div', { class: 'line meta', text });
    if (text.startsWith('@@')) return element('div', { class: 'line hunk', text });
    if (text.startsWith('+')) return element('ins', { class: 'line', text });
    if (text.startsWith('-')) return element('del', { class: 'line', text });
    return element('div', { class: 'line', text: text || ' ' });
  });
}
