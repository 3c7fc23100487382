import type { Clock } from '../base/clock.ts';

export type Wanted = 'responses' | 'queries';

export interface PacketSender {
  /** Includes the zone if it is link-local. */
  readonly address: string;
  readonly port: number;
}

/** RFC 6762 section 17: no mDNS packet is larger, headers included. */
const MAX_PACKET_BYTES = 9000;
const HEADER_BYTES = 12;
/** A question has an empty name, type and class; a record also TTL and length. */
const MIN_QUESTION_BYTES = 5;
const MIN_RECORD_BYTES = 11;

/** Occurs in the names of opencode's advertisements, of ours, and of queries for ours. */
const MARK = 'opencode-';

/** The cost of decoding a packet is proportional to its size. */
const BYTES_PER_TOKEN = 500;

/** A machine with 64 instances answers a query with as many packets, then is silent until the next. */
const SENDER = { burst: 400, perSecond: 20 };
/** All machines together: 500 instances answer at once. */
const ALL = { burst: 4000, perSecond: 200 };
/** Few are enough, because each answer is multicast to all. */
const QUERIES = { burst: 10, perSecond: 2 };

/** More senders than a LAN has machines: someone forges addresses. */
const MAX_SENDERS = 1024;

/** Filters and rate-limits packets before they are decoded: a LAN has many other devices, and anyone on it can flood. */
export class Intake {
  readonly #clock: Clock;
  readonly #wanted: Wanted;
  readonly #port: number;
  readonly #all: Bucket;
  readonly #senders = new Map<string, Bucket>();

  /** `port`: the source port required of responses (RFC 6762 section 6). */
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
    // Forgotten senders start with full buckets; the common bucket still limits them.
    if (this.#senders.size >= MAX_SENDERS) this.#senders.clear();
    const bucket = new Bucket(SENDER, nowMs);
    this.#senders.set(address, bucket);
    return bucket;
  }
}

/** Whether the packet is large enough for the counts in its header, for which the decoder allocates. Opcode and response code must be zero (RFC 6762 section 18). */
function isPlausible(packet: Buffer): boolean {
  if (packet.length < HEADER_BYTES || packet.length > MAX_PACKET_BYTES) return false;
  if ((packet.readUInt16BE(2) & 0x780f) !== 0) return false;
  const questions = packet.readUInt16BE(4);
  const records = packet.readUInt16BE(6) + packet.readUInt16BE(8) + packet.readUInt16BE(10);
  return HEADER_BYTES + questions * MIN_QUESTION_BYTES + records * MIN_RECORD_BYTES <= packet.length;
}

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
