// npm run picture: runs the demo in tmux and draws its screen as docs/demo.svg, dark and light.
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const COLUMNS = 84;
/* oxlint-disable no-control-regex -- escape sequences are what this file reads */

/** More than the demo prints. */
const ROWS = 100;
/** The demo's first words in the picture, and the first words after it. */
const FROM = 'What does each of them do?';
const TO = 'Claude Code and other MCP clients';
const LINE_PX = 19;
const CHARACTER_PX = 8.43;
const MARGIN_PX = 20;
/** CSS classes by SGR code. */
const CLASSES: Readonly<Record<string, string>> = { 1: 'b', 2: 'd', 31: 'r', 32: 'g', 33: 'y', 36: 'c' };

const root = fileURLToPath(new URL('..', import.meta.url));
await writeFile(`${root}docs/demo.svg`, drawn(await screen()));

/** The lines of the terminal, with their escape sequences. */
async function screen(): Promise<readonly string[]> {
  const tmux = (...args: readonly string[]) =>
    promisify(execFile)('tmux', ['-u', '-L', `opencode-mcp-picture-${process.pid}`, '-f', '/dev/null', ...args]);
  const command = `cd '${root}'; '${process.execPath}' --import tsx scripts/demo.ts; tmux wait-for -S done; sleep 60`;
  await tmux('new-session', '-d', '-x', String(COLUMNS), '-y', String(ROWS), '--', 'sh', '-c', command);
  try {
    await tmux('wait-for', 'done');
    const { stdout } = await tmux('capture-pane', '-p', '-e');
    const lines = stdout.split('\n');
    const at = (words: string): number => lines.findIndex((line) => line.includes(words));
    if (at(FROM) === -1 || at(TO) === -1)
      throw new Error(`the demo did not show the first and last words of the picture:\n${stdout}`);
    return painted(lines).slice(at(FROM), at(TO) - 1);
  } finally {
    await tmux('kill-server');
  }
}

function drawn(lines: readonly string[]): string {
  const width = Math.ceil(COLUMNS * CHARACTER_PX + 2 * MARGIN_PX);
  const height = lines.length * LINE_PX + 2 * MARGIN_PX;
  const texts = lines.map(
    (line, index) => `<text x="${MARGIN_PX}" y="${MARGIN_PX + 14 + index * LINE_PX}">${line}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" xml:space="preserve" role="img" aria-label="opencode-mcp in a terminal: the list of instances, a message sent to one, a permission allowed">
<style>
rect{fill:#fff;stroke:#d0d7de}text{fill:#24292f;font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre}
.b{font-weight:700}.d{opacity:.6}.r{fill:#cf222e}.g{fill:#1a7f37}.y{fill:#9a6700}.c{fill:#1b7c83}
@media(prefers-color-scheme:dark){rect{fill:#0d1117;stroke:#30363d}text{fill:#e6edf3}.r{fill:#ff7b72}.g{fill:#3fb950}.y{fill:#d29922}.c{fill:#39c5cf}}
</style>
<rect x=".5" y=".5" width="${width - 1}" height="${height - 1}" rx="8"/>
${texts.join('\n')}
</svg>
`;
}

/** The lines as SVG. Attributes carry over to the next line. */
function painted(lines: readonly string[]): readonly string[] {
  let classes = new Set<string>();
  const span = (piece: string): string => {
    const codes = /^\u001b\[([\d;]*)m$/.exec(piece)?.[1];
    if (codes === undefined) {
      const text = piece.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
      return classes.size === 0 || text === '' ? text : `<tspan class="${[...classes].join(' ')}">${text}</tspan>`;
    }
    for (const code of codes.split(';')) {
      const name = CLASSES[code];
      if (name !== undefined) classes.add(name);
      else if (code === '0' || code === '') classes = new Set();
      else if (code === '39') classes = new Set([...classes].filter((one) => one === 'b' || one === 'd'));
      else if (code === '22') classes = new Set([...classes].filter((one) => one !== 'b' && one !== 'd'));
    }
    return '';
  };
  return lines.map((line) =>
    line
      .split(/(\u001b\[[\d;]*m)/)
      .map(span)
      .join(''),
  );
}
