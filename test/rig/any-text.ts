import * as fc from 'fast-check';

/** Strings of any code points, lone surrogates included. `fc.string({ unit: 'binary' })` takes a second to create. */
export function anyText(): fc.Arbitrary<string> {
  return fc.array(fc.integer({ min: 0, max: 0x10_ffff })).map((points) => String.fromCodePoint(...points));
}
