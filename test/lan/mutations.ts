/** `count` mutations of valid packets: cut, lengthened, with flipped bits, wrong lengths and pointers. The same seed gives the same mutations. */
export function mutations(packets: readonly Buffer[], count: number, seed: number): Buffer[] {
  const random = generator(seed);
  return Array.from({ length: count }, (_, index) => {
    const packet = Buffer.from(packets[index % packets.length] ?? Buffer.alloc(12));
    for (let changes = 1 + random(6); changes > 0; changes -= 1) {
      const offset = random(packet.length);
      // A name compression pointer, the largest byte, one flipped bit or any byte.
      packet[offset] = [0xc0, 0xff, (packet[offset] ?? 0) ^ (1 << random(8)), random(256)][random(4)] ?? 0;
    }
    // Without the mark that the intake looks for, the packets would not be decoded.
    const marked = Buffer.concat([packet, Buffer.from('opencode-')]);
    return random(3) === 0 ? marked.subarray(random(packet.length)) : marked;
  });
}

/** Whole numbers below `limit`, from a linear congruential generator, so that a failure can be repeated. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}
