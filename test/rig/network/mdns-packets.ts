/** Encodes mDNS packets, valid and invalid. Names are not compressed. */

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
  /** First label of the service's name, for example `opencode-4096`. */
  readonly label: string;
  /** For example `_http._tcp.local`. */
  readonly type: string;
  readonly port: number;
  /** Default: `opencode.local`, which all machines use. */
  readonly target?: string;
  readonly txt?: readonly string[];
  /** IPv4. */
  readonly addresses?: readonly string[];
  /** In seconds; 0 is a goodbye. Default: 28,800, as opencode uses. */
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
    { name: type, type: 'PTR', ttl, data: encodeName(name) },
    { name, type: 'SRV', ttl, data: Buffer.concat([encodeUint16s(0, 0, port), encodeName(target)]) },
    { name, type: 'TXT', ttl, data: Buffer.concat(txt.map(encodeString)) },
    ...addresses.map((address): Record => {
      return { name: target, type: 'A', ttl, data: Buffer.from(address.split('.').map(Number)) };
    }),
  ];
}

export function response(records: readonly Record[]): Buffer {
  return Buffer.concat([encodeUint16s(0, RESPONSE, 0, records.length, 0, 0), ...records.map(encodeRecord)]);
}

/** A question for all services of a type. */
export function question(type: string): Buffer {
  return Buffer.concat([encodeUint16s(0, 0, 1, 0, 0, 0), encodeName(type), encodeUint16s(TYPES.PTR, INTERNET)]);
}

function encodeRecord({ name, type, ttl, data }: Record): Buffer {
  const seconds = Buffer.alloc(4);
  seconds.writeUInt32BE(ttl);
  return Buffer.concat([
    encodeName(name),
    encodeUint16s(TYPES[type], INTERNET),
    seconds,
    encodeUint16s(data.length),
    data,
  ]);
}

function encodeName(name: string): Buffer {
  return Buffer.concat([...name.split('.').map(encodeString), Buffer.alloc(1)]);
}

function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function encodeUint16s(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, 2 * index);
  return bytes;
}
