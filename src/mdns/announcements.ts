import * as z from 'zod';

import { type Advertised, CONNECTED_TYPE, OPENCODE_TYPE, readTxt } from './service-types.ts';

/** One service in one packet. */
export interface Announcement {
  /** The advertiser: opencode itself, or `opencode-connected`. */
  readonly kind: 'opencode' | 'connected';
  /** Service name, in lower case. */
  readonly name: string;
  /** Only a hint: opencode 1.18.33 sends goodbyes for names of other machines (see `Sightings`). */
  readonly isGoodbye: boolean;
  readonly port: number;
  readonly claims: Advertised;
  /** Address records of the service's host, in lower case and without zones. */
  readonly addresses: readonly string[];
}

const MAX_SERVICES = 64;
const MAX_ADDRESSES = 16;

const recordSchema = z.object({ name: z.string(), ttl: z.number() });
const ptrSchema = recordSchema.extend({ type: z.literal('PTR'), data: z.string() });
const srvSchema = recordSchema.extend({
  type: z.literal('SRV'),
  data: z.object({ port: z.int().min(1).max(65_535), target: z.string() }),
});
const txtSchema = recordSchema.extend({ type: z.literal('TXT'), data: z.array(z.instanceof(Uint8Array)) });
const addressSchema = recordSchema.extend({ type: z.enum(['A', 'AAAA']), data: z.string() });

/** A packet decoded by multicast-dns; its records are checked one by one. */
const packetSchema = z.object({ answers: z.array(z.unknown()), additionals: z.array(z.unknown()) });

/** The services of our two types that a decoded packet describes completely. Invalid records are ignored. */
export function announcementsIn(decoded: unknown): readonly Announcement[] {
  const packet = packetSchema.safeParse(decoded);
  if (!packet.success) return [];
  const records = [...packet.data.answers, ...packet.data.additionals];
  const srvs = byName(records, ['SRV'], srvSchema);
  const txts = byName(records, ['TXT'], txtSchema);
  const addresses = all(records, ['A', 'AAAA'], addressSchema);
  const found = new Map<string, Announcement>();
  for (const { name, data, ttl } of all(records, ['PTR'], ptrSchema)) {
    const type = name.toLowerCase();
    const service = data.toLowerCase();
    const srv = srvs.get(service);
    const kind = kindOf(type, service, srv?.data.port);
    if (kind === undefined || srv === undefined || found.has(service) || found.size >= MAX_SERVICES) continue;
    const target = srv.data.target.toLowerCase();
    found.set(service, {
      kind,
      name: service,
      isGoodbye: ttl === 0,
      port: srv.data.port,
      claims: kind === 'connected' ? readTxt(txts.get(service)?.data ?? []) : {},
      addresses: addresses
        .filter((record) => record.name.toLowerCase() === target)
        .slice(0, MAX_ADDRESSES)
        .map((record) => record.data.toLowerCase()),
    });
  }
  return [...found.values()];
}

/** Other web servers share opencode's service type; its name distinguishes it. */
function kindOf(type: string, service: string, port: number | undefined): Announcement['kind'] | undefined {
  if (type === CONNECTED_TYPE && service.endsWith(`.${CONNECTED_TYPE}`)) return 'connected';
  return type === OPENCODE_TYPE && service === `opencode-${port}.${OPENCODE_TYPE}` ? 'opencode' : undefined;
}

function all<Schema extends z.ZodType>(
  records: readonly unknown[],
  types: readonly string[],
  schema: Schema,
): z.output<Schema>[] {
  return records.flatMap((record) => {
    // Cheap test first: a packet may have hundreds of records of other types.
    if (typeof record !== 'object' || record === null || !('type' in record)) return [];
    if (!types.some((type) => type === record.type)) return [];
    const read = schema.safeParse(record);
    return read.success ? [read.data] : [];
  });
}

/** The first record of each name. */
function byName<Schema extends z.ZodType<{ readonly name: string }>>(
  records: readonly unknown[],
  types: readonly string[],
  schema: Schema,
): ReadonlyMap<string, z.output<Schema>> {
  return new Map(
    all(records, types, schema)
      .toReversed()
      .map((record) => [record.name.toLowerCase(), record]),
  );
}
