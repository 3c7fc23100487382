import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { announcementsIn } from '../../src/mdns/announcements.ts';
import { readTxt, txtOf } from '../../src/mdns/service-types.ts';
import { anyText } from '../rig/any-text.ts';

const NAME = 'opencode-4096._http._tcp.local';
const PTR = { name: '_http._tcp.local', type: 'PTR', ttl: 28_800, data: NAME };
const SRV = { name: NAME, type: 'SRV', ttl: 120, data: { port: 4096, target: 'opencode.local' } };
const A = { name: 'opencode.local', type: 'A', ttl: 120, data: '192.168.1.7' };

const OWN_NAME = 'opencode-abc._opencode-mcp._tcp.local';
const OWN = [
  { name: '_opencode-mcp._tcp.local', type: 'PTR', ttl: 28_800, data: OWN_NAME },
  { name: OWN_NAME, type: 'SRV', ttl: 120, data: { port: 5000, target: 'opencode-abc.local' } },
];

function announcementsOf(...records: readonly unknown[]): ReturnType<typeof announcementsIn> {
  return announcementsIn({ answers: records, additionals: [] });
}

describe('a packet', () => {
  it('announces an opencode that its name and port identify', () => {
    expect(announcementsIn({ answers: [PTR], additionals: [SRV, A] })).toEqual([
      { kind: 'opencode', name: NAME, isGoodbye: false, port: 4096, claims: {}, addresses: ['192.168.1.7'] },
    ]);
  });

  it('announces an instance of opencode-connected, with its claims', () => {
    const txt = { name: OWN_NAME, type: 'TXT', ttl: 120, data: [Buffer.from('v=1'), Buffer.from('id=abc')] };
    expect(announcementsOf(...OWN, txt)).toMatchObject([{ kind: 'connected', port: 5000, claims: { id: 'abc' } }]);
  });

  it('is a goodbye if its TTL is 0', () => {
    expect(announcementsOf({ ...PTR, ttl: 0 }, SRV)).toMatchObject([{ isGoodbye: true }]);
  });

  it.each([
    { name: 'has no port', records: [PTR] },
    { name: 'has an invalid port', records: [PTR, { ...SRV, data: { port: 0, target: 'x' } }] },
    {
      name: 'is from another web server',
      records: [
        { ...PTR, data: 'printer._http._tcp.local' },
        { ...SRV, name: 'printer._http._tcp.local' },
      ],
    },
    { name: 'has different ports in its name and record', records: [PTR, { ...SRV, data: { port: 80, target: 'x' } }] },
    { name: 'is of another service type', records: [{ ...PTR, name: '_ssh._tcp.local' }, SRV] },
    { name: 'has invalid records', records: [undefined, null, 7, 'PTR', { type: 'PTR' }, { ...PTR, data: 7 }] },
  ])('announces nothing if it $name', ({ records }) => {
    expect(announcementsOf(...records)).toEqual([]);
  });

  it('announces nothing if it is invalid, and never causes an exception', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        expect(announcementsIn(value)).toEqual([]);
        announcementsIn({ answers: [value, PTR, SRV], additionals: [value, { ...OWN[0], data: value }, ...OWN] });
      }),
    );
  });

  it('announces at most 64 services with 16 addresses each', () => {
    const many = Array.from({ length: 300 }, (_, index) => {
      const name = `opencode-${index + 1}._http._tcp.local`;
      return [
        { ...PTR, data: name },
        { ...SRV, name, data: { port: index + 1, target: 'opencode.local' } },
      ];
    }).flat();
    const services = announcementsOf(...many, ...Array.from({ length: 100 }, () => A));
    expect([services.length, services[0]?.addresses.length]).toEqual([64, 16]);
  });
});

describe('a TXT record', () => {
  const buffers = (txt: Readonly<Record<string, string>>): Buffer[] =>
    Object.entries(txt).map(([key, value]) => Buffer.from(`${key}=${value}`));

  it("contains an instance's claims, without those that are too long", () => {
    const claims = { id: 'a-B_9', name: 'laptop-käse', hostname: 'laptop', directory: '/home/ada/x = y' };
    expect(readTxt(buffers(txtOf(claims)))).toEqual(claims);
    expect(txtOf({ id: 'a', directory: `/${'é'.repeat(126)}` })).toEqual({ v: '1', id: 'a' });
  });

  it('is read without control characters', () => {
    const bytes = fc.array(fc.uint8Array({ maxLength: 20 }), { maxLength: 10 });
    fc.assert(
      fc.property(bytes, anyText(), (strings, text) => {
        const written = ['id', 'name', 'host', 'dir'].map((key) => Buffer.from(`${key}=${text}\u202E\u0000\n${text}`));
        const { id, ...labels } = readTxt([...strings, ...written]);
        expect(id ?? 'a').toMatch(/^[A-Za-z0-9_-]{1,64}$/);
        for (const label of Object.values(labels)) {
          expect(label).not.toMatch(/[\p{Cc}\p{Bidi_Control}]/u);
          expect(Array.from(label).length).toBeLessThanOrEqual(255);
        }
      }),
    );
  });

  it('is read up to its 32nd string, with the first value of a repeated key', () => {
    expect(readTxt([Buffer.from('name=a'), Buffer.from('NAME=b'), Buffer.from('=c'), Buffer.from('host')])).toEqual({
      name: 'a',
    });
    const late = [...Array.from({ length: 32 }, () => Buffer.from('x=y')), Buffer.from('name=late')];
    expect(readTxt(late)).toEqual({});
  });
});
