import { describe, expect, it } from 'vitest';

import { Intake } from '../../src/mdns/intake.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { announcement, question, recordsOf, response } from '../rig/network/mdns-packets.ts';

const SERVICE = { label: 'opencode-4096', type: '_http._tcp.local', port: 4096 };
const PACKET = announcement(SERVICE);
const NEIGHBOUR = { address: '192.168.1.7', port: 5353 };

function packetWith(offset: number, value: number): Buffer {
  const packet = Buffer.from(PACKET);
  packet.writeUInt16BE(value, offset);
  return packet;
}

describe('the intake of packets from the LAN', () => {
  it.each([
    { name: 'an announcement', packet: PACKET, admitted: true },
    {
      name: 'an announcement of another service',
      packet: announcement({ ...SERVICE, label: 'printer' }),
      admitted: false,
    },
    { name: 'a question', packet: question('_opencode-mcp._tcp.local'), admitted: false },
    { name: 'an announcement from another port', packet: PACKET, port: 40_000, admitted: false },
    { name: 'a packet shorter than a header', packet: Buffer.from('opencode-'), admitted: false },
    {
      name: 'a packet longer than mDNS allows',
      packet: response(Array.from({ length: 100 }, () => recordsOf(SERVICE)).flat()),
      admitted: false,
    },
    { name: 'a header with more records than can follow', packet: packetWith(6, 60_000), admitted: false },
    { name: 'a header with more questions than can follow', packet: packetWith(4, 60_000), admitted: false },
    { name: 'a packet with another opcode', packet: packetWith(2, 0x9400), admitted: false },
    { name: 'a packet with an error code', packet: packetWith(2, 0x8403), admitted: false },
  ])('$name is admitted: $admitted', ({ packet, port = 5353, admitted }) => {
    const intake = new Intake('responses', 5353, new ManualClock());
    expect(intake.admits(packet, { ...NEIGHBOUR, port })).toBe(admitted);
  });

  it('admits queries from any port for a publisher', () => {
    const intake = new Intake('queries', 5353, new ManualClock());
    expect(intake.admits(question('_opencode-mcp._tcp.local'), { ...NEIGHBOUR, port: 40_000 })).toBe(true);
    expect(intake.admits(PACKET, NEIGHBOUR)).toBe(false);
  });

  function countAdmitted(intake: Intake, packet: Buffer, senders: number, packetsEach: number): number {
    let count = 0;
    for (let index = 0; index < senders * packetsEach; index += 1)
      if (intake.admits(packet, { ...NEIGHBOUR, address: `fe80::${index % senders}%eth0` })) count += 1;
    return count;
  }

  it('admits 128 answers each from eight machines at once', () => {
    const intake = new Intake('responses', 5353, new ManualClock());
    expect(countAdmitted(intake, PACKET, 8, 128)).toBe(8 * 128);
  });

  it('limits a flood of large packets, also from many forged addresses', async () => {
    const clock = new ManualClock();
    const intake = new Intake('responses', 5353, clock);
    const large = response(Array.from({ length: 50 }, () => recordsOf(SERVICE)).flat());
    expect(large.length).toBeGreaterThan(6000);
    const [one, many] = [countAdmitted(intake, large, 1, 1000), countAdmitted(intake, large, 5000, 1)];
    expect([one > 10, one < 40, many > 100, many < 400]).toEqual([true, true, true, true]);
    await clock.advance(1000);
    expect(countAdmitted(intake, PACKET, 5000, 2)).toBeLessThan(250);
  });

  it('admits the packets of one machine while another floods', () => {
    const intake = new Intake('responses', 5353, new ManualClock());
    countAdmitted(intake, PACKET, 1, 100_000);
    expect(intake.admits(PACKET, NEIGHBOUR)).toBe(true);
  });

  it('admits ten queries at once, then two a second', async () => {
    const clock = new ManualClock();
    const intake = new Intake('queries', 5353, clock);
    expect(countAdmitted(intake, question('_opencode-mcp._tcp.local'), 100, 10)).toBeLessThanOrEqual(10);
    await clock.advance(10_000);
    expect(countAdmitted(intake, question('_opencode-mcp._tcp.local'), 100, 10)).toBeGreaterThan(5);
  });
});
