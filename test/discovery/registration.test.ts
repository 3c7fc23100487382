import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  readRegistration,
  type Registration,
  type RegistrationReading,
} from '../../src/discovery/registry/registration.ts';
import { anyText } from '../rig/any-text.ts';

const COMPLETE = {
  id: 'a_B-9',
  name: 'api',
  hostname: 'box',
  port: 40_001,
  localPort: 4096,
  cwd: '/home/u/api',
  connectedAt: '2026-01-02T03:04:05Z',
};
const CONNECTED_AT = Date.UTC(2026, 0, 2, 3, 4, 5);

function read(content: unknown, fileName = 'file.json'): RegistrationReading {
  return readRegistration(Buffer.from(typeof content === 'string' ? content : JSON.stringify(content)), fileName);
}
function problemOf(reading: RegistrationReading): string {
  return 'problem' in reading ? reading.problem : `no problem: ${JSON.stringify(reading)}`;
}
function acceptedReading(reading: RegistrationReading): { registration: Registration; remarks: readonly string[] } {
  if ('problem' in reading) throw new Error(`Expected a registration, got the problem: ${reading.problem}`);
  return reading;
}

describe('a registration file', () => {
  const accepted: readonly { name: string; content: unknown; expected: Partial<Registration> }[] = [
    { name: 'with every field', content: COMPLETE, expected: { ...COMPLETE, connectedAt: CONNECTED_AT } },
    {
      name: 'of the original program, without id',
      content: { ...COMPLETE, id: undefined },
      expected: { name: 'api', port: 40_001 },
    },
    {
      name: 'with nulls, as templates leave them',
      content: {
        port: 1234,
        name: null,
        id: null,
        localPort: null,
        cwd: null,
        hostname: null,
        connectedAt: null,
        protocol: null,
      },
      expected: { name: 'file', port: 1234 },
    },
    {
      name: 'with a date in milliseconds',
      content: { port: 1234, connectedAt: CONNECTED_AT },
      expected: { connectedAt: CONNECTED_AT },
    },
    {
      name: 'with an offset in its date',
      content: { port: 1234, connectedAt: '2026-01-02T04:04:05+01:00' },
      expected: { connectedAt: CONNECTED_AT },
    },
    { name: 'with a name of blanks', content: { port: 1234, name: ' \t ' }, expected: { name: 'file' } },
    { name: 'of protocol 1', content: { port: 1234, protocol: 1 }, expected: { port: 1234 } },
    { name: 'with a byte order mark', content: `\ufeff${JSON.stringify({ port: 1234 })}`, expected: { port: 1234 } },
    { name: 'with the longest id', content: { port: 1234, id: 'x'.repeat(64) }, expected: { id: 'x'.repeat(64) } },
    {
      name: 'with a cwd of any characters, because it is compared',
      content: { port: 1234, cwd: '/a\n\u001b[31m\u202e' },
      expected: { cwd: '/a\n\u001b[31m\u202e' },
    },
    { name: 'with the highest port', content: { port: 65_535 }, expected: { port: 65_535 } },
  ];
  it.each(accepted)('is read $name', ({ content, expected }) => {
    expect(acceptedReading(read(content)).registration).toMatchObject(expected);
  });

  it('is read without unknown fields', () => {
    expect(acceptedReading(read({ port: 1234, token: 'x' })).registration).toEqual({ name: 'file', port: 1234 });
  });

  const refused: readonly { name: string; content: string | object; problem: RegExp }[] = [
    { name: 'empty', content: '', problem: /empty/ },
    { name: 'half written', content: '{"name":"api","po', problem: /not complete JSON/ },
    { name: 'a NUL after good JSON', content: '{"port":1234}\0', problem: /NUL bytes/ },
    { name: 'an array', content: '[1]', problem: /expected a JSON object, got \[1\]/ },
    { name: 'null', content: 'null', problem: /expected a JSON object, got null/ },
    { name: 'deep nesting', content: '['.repeat(60_000), problem: /not complete JSON/ },
    { name: 'no port', content: { name: 'api' }, problem: /^port: expected an integer from 1 to 65535, got nothing$/ },
    { name: 'port 0', content: { port: 0 }, problem: /^port: .*got 0$/ },
    { name: 'port 65536', content: { port: 65_536 }, problem: /^port: .*got 65536$/ },
    { name: 'port "4096"', content: { port: '4096' }, problem: /^port: .*got "4096"$/ },
    { name: 'port 1.5', content: { port: 1.5 }, problem: /^port: .*got 1.5$/ },
    { name: 'port null', content: { port: null }, problem: /^port: .*got null$/ },
    { name: 'a port that fetch refuses', content: { port: 6667 }, problem: /6667 .*fetch refuses/ },
    { name: 'localPort "4096"', content: { port: 1234, localPort: '4096' }, problem: /^localPort: .*got "4096"$/ },
    { name: 'a name that is a number', content: { port: 1234, name: 5 }, problem: /^name: expected a string, got 5$/ },
    { name: 'a hostname that is an object', content: { port: 1234, hostname: {} }, problem: /^hostname: / },
    { name: 'a cwd with a NUL', content: { port: 1234, cwd: '/a\0/b' }, problem: /^cwd: no directory has such a name/ },
    {
      name: 'a cwd with half a surrogate pair',
      content: { port: 1234, cwd: '/a\ud800' },
      problem: /^cwd: no directory/,
    },
    {
      name: 'a cwd that is too long',
      content: { port: 1234, cwd: `/${'x'.repeat(4096)}` },
      problem: /^cwd: no directory/,
    },
    { name: 'a cwd that is a list', content: { port: 1234, cwd: ['/'] }, problem: /^cwd: / },
    { name: 'connectedAt true', content: { port: 1234, connectedAt: true }, problem: /^connectedAt: / },
    {
      name: 'an id with a path',
      content: { port: 1234, id: '../../etc/passwd' },
      problem: /^id: .*got "\.\.\/\.\.\/etc\/passwd"$/,
    },
    { name: 'an id with a line break at its end', content: { port: 1234, id: 'a\n' }, problem: /^id: / },
    { name: 'an id of 65 characters', content: { port: 1234, id: 'x'.repeat(65) }, problem: /^id: / },
    { name: 'several wrong fields', content: { port: 'x', name: 1 }, problem: /^name: .*; port: / },
    {
      name: 'a newer protocol, even with an unknown kind of port',
      content: { protocol: 2, port: { tcp: 1 } },
      problem: /^written by a newer opencode-connected \(protocol 2\); update this program$/,
    },
    {
      name: 'protocol 0',
      content: { protocol: 0, port: 1234 },
      problem: /^protocol: expected a positive integer, got 0$/,
    },
    { name: 'protocol "1"', content: { protocol: '1', port: 1234 }, problem: /^protocol: .*got "1"$/ },
  ];
  it.each(refused)('is refused with a reason: $name', ({ content, problem }) => {
    expect(problemOf(read(content))).toMatch(problem);
  });

  it('is refused when it is not UTF-8', () => {
    expect(problemOf(readRegistration(Buffer.from('{"port":1234,"name":"\xe9"}', 'latin1'), 'x.json'))).toMatch(
      /not UTF-8/,
    );
  });

  const cleaned: readonly { name: string; content: object; expected: Partial<Registration>; remark: RegExp }[] = [
    {
      name: 'a name with escape sequences',
      content: { name: '\u001b[2J\u001b]0;x\u0007api' },
      expected: { name: 'api' },
      remark: /^name: left out control/,
    },
    {
      name: 'a name of 10,000 characters',
      content: { name: 'x'.repeat(10_000) },
      expected: { name: `${'x'.repeat(127)}…` },
      remark: /^name: cut to 128 characters$/,
    },
    {
      name: 'a name with path parts',
      content: { name: '../../etc' },
      expected: { name: '../../etc' },
      remark: /^name: looks like a path/,
    },
    {
      name: 'a name of two dots',
      content: { name: '..' },
      expected: { name: '..' },
      remark: /^name: looks like a path/,
    },
    {
      name: 'a hostile hostname',
      content: { hostname: 'a\u001b[1mb' },
      expected: { hostname: 'ab' },
      remark: /^hostname: left out/,
    },
    {
      name: 'an invalid date',
      content: { connectedAt: 'port 1' },
      expected: {},
      remark: /^connectedAt: expected an ISO date .*got "port 1"; left out$/,
    },
    { name: 'a date out of range', content: { connectedAt: 1e300 }, expected: {}, remark: /^connectedAt: / },
  ];
  it.each(cleaned)('is cleaned, with a remark: $name', ({ content, expected, remark }) => {
    const { registration, remarks } = acceptedReading(read({ port: 1234, ...content }));
    expect(registration).toEqual(expect.objectContaining({ port: 1234, ...expected }));
    if ('connectedAt' in content) expect(registration).not.toHaveProperty('connectedAt');
    expect(remarks).toEqual([expect.stringMatching(remark)]);
  });

  it('uses the cleaned file name as the default name', () => {
    expect(acceptedReading(read({ port: 1234 }, '\u001b[31mred.json')).registration.name).toBe('red');
    expect(acceptedReading(read({ port: 1234 }, '\u0001.json')).registration.name).toBe('unnamed');
  });

  it('never causes an exception or unsafe text, whatever it contains', () => {
    const anything = fc.oneof(anyText(), fc.jsonValue());
    const port = fc.constantFrom<unknown>(1234, 0, '4096', null);
    const names = ['name', 'hostname', 'cwd', 'id', 'connectedAt', 'protocol'];
    const fields = fc.record(
      { port, ...Object.fromEntries(names.map((name) => [name, anything])) },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fields.map((value) => Buffer.from(JSON.stringify(value))),
        ),
        anyText(),
        (content, fileName) => {
          const reading = readRegistration(content, fileName);
          const texts =
            'problem' in reading
              ? [reading.problem]
              : [
                  ...reading.remarks,
                  // The directory is compared unchanged, and cleaned when it is shown.
                  ...Object.values({ ...reading.registration, cwd: undefined }).filter(
                    (value) => typeof value === 'string',
                  ),
                ];
          // oxlint-disable-next-line no-control-regex
          for (const text of texts) expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e]/u);
        },
      ),
    );
  });
});
