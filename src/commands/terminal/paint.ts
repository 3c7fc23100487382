export type Colour = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** Select Graphic Rendition: begin and end codes. */
const CODES: Readonly<Record<Colour, readonly [number, number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
};

export type Paint = (text: string, colour: Colour | undefined) => string;

const plain: Paint = (text) => text;

/** Colours only on a terminal that has them; Node reads NO_COLOR, FORCE_COLOR and TERM itself. */
export function paintFor(stdout: NodeJS.WriteStream): Paint {
  if (!stdout.isTTY || !stdout.hasColors()) return plain;
  return (text, colour) => {
    if (colour === undefined || text === '') return text;
    const [begin, end] = CODES[colour];
    return `\u001b[${begin}m${text}\u001b[${end}m`;
  };
}

export function colourOf(state: string): Colour | undefined {
  if (state === 'waiting') return 'yellow';
  if (state === 'idle' || state === 'completed') return 'green';
  if (state === 'busy' || state === 'starting' || state === 'running') return 'cyan';
  return state === 'unknown' ? 'dim' : 'red';
}
