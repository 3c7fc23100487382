import { crc32, deflateSync, inflateSync } from 'node:zlib';

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex');
const MAX_COLOURS = 256;

/** Reduces a screenshot of Chromium (8 bits per channel, RGB or RGBA, not interlaced) to a palette of its commonest colours: a third of the size. */
export function smallPng(png: Buffer): Buffer {
  const { width, height, pixels } = decode(png);
  const counts = new Map<number, number>();
  for (const colour of pixels) counts.set(colour, (counts.get(colour) ?? 0) + 1);
  const palette = paletteOf(counts);
  const places = new Map(palette.map((colour, at) => [colour, at]));
  const rows = Buffer.alloc((width + 1) * height);
  pixels.forEach((colour, at) => {
    const place = places.get(colour) ?? nearest(palette, colour);
    places.set(colour, place);
    rows[Math.floor(at / width) * (width + 1) + 1 + (at % width)] = place;
  });
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // 8 bits per pixel, with a palette.
  header.set([8, 3, 0, 0, 0], 8);
  const colours = Buffer.from(palette.flatMap((colour) => channels(colour)));
  const data = deflateSync(rows, { level: 9, memLevel: 9 });
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('PLTE', colours),
    chunk('IDAT', data),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** The commonest colour of each shade first, so that a small dot keeps its colour. */
function paletteOf(counts: ReadonlyMap<number, number>): number[] {
  const byCount = [...counts].toSorted(([, one], [, other]) => other - one).map(([colour]) => colour);
  const shades = new Map<number, number>();
  for (const colour of byCount) if (!shades.has(colour & 0xe0e0e0)) shades.set(colour & 0xe0e0e0, colour);
  return [...new Set([...shades.values(), ...byCount])].slice(0, MAX_COLOURS);
}

function decode(png: Buffer): { readonly width: number; readonly height: number; readonly pixels: number[] } {
  const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
  const [depth, type, , , interlaced] = png.subarray(24, 29);
  if (depth !== 8 || (type !== 2 && type !== 6) || interlaced !== 0)
    throw new Error(`Expected a PNG of 8 bits a channel in RGB, got depth ${depth}, type ${type}`);
  const size = type === 6 ? 4 : 3;
  const parts: Buffer[] = [];
  for (let at = SIGNATURE.length; at < png.length; at += 12 + png.readUInt32BE(at))
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT')
      parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  const raw = inflateSync(Buffer.concat(parts));
  const stride = width * size;
  const pixels: number[] = [];
  let above = Buffer.alloc(stride);
  for (let row = 0; row < height; row += 1) {
    const start = row * (stride + 1);
    const line = Buffer.from(raw.subarray(start + 1, start + 1 + stride));
    for (let at = 0; at < stride; at += 1) {
      const left = at < size ? 0 : (line[at - size] ?? 0);
      const corner = at < size ? 0 : (above[at - size] ?? 0);
      line[at] = (line[at] ?? 0) + predicted(raw[start] ?? 0, left, above[at] ?? 0, corner);
    }
    for (let at = 0; at < stride; at += size) pixels.push(line.readUIntBE(at, 3));
    above = line;
  }
  return { width, height, pixels };
}

/** PNG's filters: none, sub, up, average, Paeth. */
function predicted(filter: number, left: number, up: number, corner: number): number {
  if (filter === 4) {
    const guess = left + up - corner;
    const [toLeft, toUp, toCorner] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
    return toLeft <= toUp && toLeft <= toCorner ? left : toUp <= toCorner ? up : corner;
  }
  return [0, left, up, (left + up) >> 1][filter] ?? 0;
}

function channels(colour: number): [number, number, number] {
  return [colour >> 16, (colour >> 8) & 0xff, colour & 0xff];
}

function nearest(palette: readonly number[], colour: number): number {
  const wanted = channels(colour);
  let best = 0;
  let bestDistance = Infinity;
  palette.forEach((one, at) => {
    const distance = channels(one).reduce((sum, value, channel) => sum + (value - (wanted[channel] ?? 0)) ** 2, 0);
    if (distance < bestDistance) [best, bestDistance] = [at, distance];
  });
  return best;
}

function chunk(name: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(name, 'latin1'), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}
