/** mDNS packets, valid and invalid ones. Names are not compressed. */

const TYPES = { A: 1, PTR: 12, TXT: 16, AAAA: 28, SRV: 33 } as const;
const RESPONSE = 0x8400;
const INTERNET = 1;

export interface Record {
  readonly name: string;
  readonly type: keyof typeof TYPES;
  readonly ttl: number;
  readonly data: Buffer;
}

export interface Service {
  /** Its first label: `opencode-4096`. */
  readonly label: string;
  /** `_http._tcp.local` */
  readonly type: string;
  readonly port: number;
  /** Default: `opencode.local`, which all machines use. */
  readonly target?: string;
  readonly txt?: readonly string[];
  /** IPv4. */
  readonly addresses?: readonly string[];
  /** In seconds; 0 is a goodbye. Default: 28,800 as opencode's. */
  readonly ttl?: number;
}

/** A responder's announcement of a service. */
export function announcement(service: Service): Buffer {
  return response(recordsOf(service));
}

export function recordsOf(service: Service): readonly Record[] {
  const { label, type, port, target = 'opencode.local', txt = ['path=/'], addresses = [], ttl = 28_800 } = service;
  const name = `${label}.${type}`;
  return [
    { name: type, type: 'PTR', ttl, data: nameOf(name) },
    { name, type: 'SRV', ttl, data: Buffer.concat([numbers(0, 0, port), nameOf(target)]) },
    { name, type: 'TXT', ttl, data: Buffer.concat(txt.map(stringOf)) },
    ...addresses.map((address): Record => {
      return { name: target, type: 'A', ttl, data: Buffer.from(address.split('.').map(Number)) };
    }),
  ];
}

export function response(records: readonly Record[]): Buffer {
  return Buffer.concat([numbers(0, RESPONSE, 0, records.length, 0, 0), ...records.map(recordOf)]);
}

/** A question for all services of a type. */
export function question(type: string): Buffer {
  return Buffer.concat([numbers(0, 0, 1, 0, 0, 0), nameOf(type), numbers(TYPES.PTR, INTERNET)]);
}

function recordOf({ name, type, ttl, data }: Record): Buffer {
  const seconds = Buffer.alloc(4);
  seconds.writeUInt32BE(ttl);
  return Buffer.concat([nameOf(name), numbers(TYPES[type], INTERNET), seconds, numbers(data.length), data]);
}

function nameOf(name: string): Buffer {
  return Buffer.concat([...name.split('.').map(stringOf), Buffer.alloc(1)]);
}

function stringOf(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function numbers(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, 2 * index);
  return bytes;
}
