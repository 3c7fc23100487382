import type { Clock } from '../base/clock.ts';

/** Which of the packets on the LAN are for us. */
export type Wanted = 'responses' | 'queries';

export interface PacketSender {
  /** With the zone of a link-local one. */
  readonly address: string;
  readonly port: number;
}

/** RFC 6762 section 17: no mDNS packet is larger, headers included. */
const MAX_PACKET_BYTES = 9000;
const HEADER_BYTES = 12;
/** Of a question: an empty name, type and class. Of a record: TTL and length too. */
const LEAST_QUESTION_BYTES = 5;
const LEAST_RECORD_BYTES = 11;

/** Stands in the names of opencode's own advertisements, of ours, and of the questions for ours. */
const MARK = 'opencode-';

/** What a packet costs: decoding takes as long as there is to decode. */
const BYTES_PER_TOKEN = 500;

/** A machine with 64 instances answers a question with as many packets; then it is silent until the next. */
const SENDER = { burst: 400, perSecond: 20 };
/** All machines: 500 instances answer at once. */
const ALL = { burst: 4000, perSecond: 200 };
/** Each of them makes us answer everyone. Answers go to all, so that few questions need one of their own. */
const QUERIES = { burst: 10, perSecond: 2 };

/** More machines than a LAN has are one that makes up addresses. */
const MAX_SENDERS = 1024;

/** Lets through what may matter, and no more than can be worked off: the LAN is full of other devices, and anyone there can flood. */
export class Intake {
  readonly #clock: Clock;
  readonly #wanted: Wanted;
  readonly #port: number;
  readonly #all: Bucket;
  readonly #senders = new Map<string, Bucket>();

  /** `port`: from which responses must come (RFC 6762 section 6). */
  constructor(wanted: Wanted, port: number, clock: Clock) {
    this.#clock = clock;
    this.#wanted = wanted;
    this.#port = port;
    this.#all = new Bucket(wanted === 'queries' ? QUERIES : ALL, clock.monotonic());
  }

  admits(packet: Buffer, { address, port }: PacketSender): boolean {
    if (!isPlausible(packet) || !packet.includes(MARK, 0, 'latin1')) return false;
    const isResponse = ((packet[2] ?? 0) & 0x80) !== 0;
    if (isResponse !== (this.#wanted === 'responses')) return false;
    if (isResponse && port !== this.#port) return false;
    const tokens = 1 + packet.length / BYTES_PER_TOKEN;
    const nowMs = this.#clock.monotonic();
    return this.#bucketOf(address, nowMs).take(tokens, nowMs) && this.#all.take(tokens, nowMs);
  }

  #bucketOf(address: string, nowMs: number): Bucket {
    const known = this.#senders.get(address);
    if (known !== undefined) return known;
    // A forgotten sender starts with a full bucket; the bucket for all senders stays.
    if (this.#senders.size >= MAX_SENDERS) this.#senders.clear();
    const bucket = new Bucket(SENDER, nowMs);
    this.#senders.set(address, bucket);
    return bucket;
  }
}

/** Whether the packet can hold what its header promises: the decoder makes room for that first. Opcode and response code must be zero (RFC 6762 section 18). */
function isPlausible(packet: Buffer): boolean {
  if (packet.length < HEADER_BYTES || packet.length > MAX_PACKET_BYTES) return false;
  if ((packet.readUInt16BE(2) & 0x780f) !== 0) return false;
  const questions = packet.readUInt16BE(4);
  const records = packet.readUInt16BE(6) + packet.readUInt16BE(8) + packet.readUInt16BE(10);
  return HEADER_BYTES + questions * LEAST_QUESTION_BYTES + records * LEAST_RECORD_BYTES <= packet.length;
}

/** A token bucket. */
class Bucket {
  readonly #burst: number;
  readonly #perMs: number;
  #tokens: number;
  #atMs: number;

  constructor({ burst, perSecond }: { readonly burst: number; readonly perSecond: number }, nowMs: number) {
    this.#burst = burst;
    this.#perMs = perSecond / 1000;
    this.#tokens = burst;
    this.#atMs = nowMs;
  }

  take(tokens: number, nowMs: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + (nowMs - this.#atMs) * this.#perMs);
    this.#atMs = nowMs;
    if (this.#tokens < tokens) return false;
    this.#tokens -= tokens;
    return true;
  }
}
