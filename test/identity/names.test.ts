import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  assignNames,
  type Assignment,
  MAX_NAME_CHARS,
  type Nameable,
  type NameState,
  NO_NAMES,
} from '../../src/identity/names.ts';

interface Fields extends Partial<Omit<Nameable, 'members'>> {
  readonly lineage?: string;
  readonly ids?: readonly string[];
}

/** An instance with the endpoint `id` and those in `ids`. By default, its name and host make its lineage. */
function instance(id: string, fields: Fields = {}): Nameable {
  const { base = 'foo', host = 'h', port = 1, ids = [], lineage = `${base} ${host}`, ...rest } = fields;
  const [first, ...others] = [id, ...ids].map((member) => ({ id: member, lineage }));
  if (first === undefined) throw new Error('no endpoint');
  return { key: id, members: [first, ...others], base, host, port, pinned: false, alive: true, plain: true, ...rest };
}

type Snapshot = readonly Nameable[];

/** Assigns names for one snapshot after the other; returns the last names as `id=name+alias`, and the names that are gone. */
function assignAll(...snapshots: readonly Snapshot[]): { readonly names: string[]; readonly gone: string[] } {
  let state: NameState = NO_NAMES;
  let last: Assignment | undefined;
  for (const snapshot of snapshots) {
    last = assignNames(state, snapshot);
    state = last.state;
  }
  const names = [...(last?.named ?? [])].map(([key, { name, aliases }]) => `${key}=${[name, ...aliases].join('+')}`);
  return { names: names.toSorted(), gone: (last?.gone ?? []).map(({ name }) => name) };
}

const PROCESS = { processId: 'p' };
const DEAD = { alive: false };
const LAN = { plain: false };

describe('equal names in one snapshot', () => {
  test.each<[name: string, snapshot: Snapshot, names: readonly string[]]>([
    ['a single instance gets its bare name', [instance('a')], ['a=foo']],
    [
      'on different hosts, each gets its host',
      [instance('a', { host: 'x' }), instance('b', { host: 'y' })],
      ['a=foo@x', 'b=foo@y'],
    ],
    ['on one host, each gets its port', [instance('a'), instance('b', { port: 2 })], ['a=foo@h:1', 'b=foo@h:2']],
    ['on one port, they are numbered', [instance('a'), instance('b')], ['a=foo@h:1#2', 'b=foo@h:1#3']],
    [
      'an instance that answers has precedence',
      [instance('a', { ...DEAD, port: 2 }), instance('b'), instance('c', { ...DEAD, port: 3 })],
      ['a=foo@h:2', 'b=foo', 'c=foo@h:3'],
    ],
    [
      'a configured name has precedence over an instance that answers',
      [instance('a'), instance('b', { ...DEAD, pinned: true, host: 'x' })],
      ['a=foo@h', 'b=foo'],
    ],
    [
      'two endpoints of one process do not compete: the first gets the bare name',
      [instance('a', PROCESS), instance('b', { ...PROCESS, port: 2 })],
      ['a=foo', 'b=foo@h'],
    ],
    ['a LAN advertisement never gets a bare name', [instance('a', LAN)], ['a=foo@h']],
  ])('%s', (_, snapshot, names) => {
    expect(assignAll(snapshot).names).toEqual(names);
  });

  test('a claimed name does not collide with a generated one', () => {
    const claimed = instance('a', { base: 'foo@h' });
    const { names } = assignAll([claimed, instance('b', { port: 2 }), instance('c', { port: 3, ...LAN })]);
    expect(new Set(names.map((name) => name.split('=')[1])).size).toBe(3);
  });

  test('ten thousand equal names are numbered in linear time', () => {
    const many = Array.from({ length: 10_000 }, (_, index) => instance(`k${index}`));
    expect(new Set(assignAll(many).names.map((name) => name.split('=')[1])).size).toBe(10_000);
  });
});

describe('an assigned name', () => {
  const [a, b, c] = [instance('a'), instance('b', { port: 2 }), instance('c', { port: 3 })];
  const elsewhere = instance('b', { host: 'x' });
  const other = instance('a', { lineage: 'other' });
  const onHost = (id: string): Nameable => instance(id, { host: id });
  const renamed = (host: string, processId: string): Nameable => {
    const shown = instance('a', { host });
    return { ...shown, members: [{ ...shown.members[0], processId }] };
  };

  test.each<[name: string, snapshots: readonly Snapshot[], names: readonly string[], gone?: readonly string[]]>([
    ['stays with its instance when an equal one appears', [[b], [onHost('a'), b]], ['a=foo@a', 'b=foo']],
    ['is not given to a LAN advertisement', [[instance('a', LAN)], [instance('a', LAN), b]], ['a=foo@h', 'b=foo']],
    ['is not given to a later instance after its own is gone', [[a], [], [elsewhere]], ['b=foo@x'], ['foo']],
    [
      'with a host leaves no bare name for a third instance',
      [
        [onHost('a'), onHost('b')],
        [onHost('a'), onHost('b'), onHost('c')],
      ],
      ['a=foo@a', 'b=foo@b', 'c=foo@c'],
    ],
    ['stays with its instance when it comes back', [[a], [], [a, elsewhere]], ['a=foo', 'b=foo@x']],
    ['goes to a later process of the same lineage', [[a], [], [b]], ['b=foo']],
    ['goes to the process of the same lineage that replaces its own', [[a], [b]], ['b=foo']],
    ['does not go to a new process while the old one is listed', [[a], [a, b]], ['a=foo', 'b=foo@h']],
    [
      'does not go to a new process while the old one is listed without an answer',
      [[a], [instance('a', DEAD), b]],
      ['a=foo', 'b=foo@h'],
    ],
    [
      'leaves the bare name to a new process if two of its lineage had longer names',
      [[a, b], [], [c]],
      ['c=foo'],
      ['foo@h:1', 'foo@h:2'],
    ],
    [
      'does not go to a new process if two of its lineage are gone',
      [[a], [a, b], [], [c]],
      ['c=foo@h:3'],
      ['foo', 'foo@h'],
    ],
    ['goes to neither of two new processes of its lineage', [[a], [], [b, c]], ['b=foo@h:2', 'c=foo@h:3'], ['foo']],
    [
      'goes to the better of two endpoints of one new process',
      [[a], [], [instance('b', PROCESS), instance('c', { ...PROCESS, port: 2 })]],
      ['b=foo', 'c=foo@h'],
    ],
    ['stays with a process whose machine is renamed', [[renamed('old', 'p')], [renamed('new', 'p')]], ['a=foo']],
    [
      'does not stay with another process after a renaming',
      [[renamed('old', 'p')], [renamed('new', 'q')]],
      ['a=foo@new'],
      ['foo'],
    ],
    ['does not go to another lineage under the same registration', [[a], [other]], ['a=foo@h'], ['foo']],
  ])('%s', (_, snapshots, names, gone = []) => {
    expect(assignAll(...snapshots)).toEqual({ names, gone });
  });
});

test('the latest 20,000 gone names are kept', () => {
  const many = Array.from({ length: 20_000 }, (_, index) => instance(`${index}`, { base: `n${index}` }));
  const { gone } = assignAll([instance('a', { base: 'first' })], many, []);
  expect(gone).toHaveLength(20_000);
  expect(gone).not.toContain('first');
});

describe('endpoints that are proven to be one instance', () => {
  const first = instance('a', PROCESS);
  const second = instance('b', { ...PROCESS, port: 2 });
  const apart = [first, second];
  const together = [instance('a', { ...PROCESS, ids: ['b'] })];

  test.each<[name: string, snapshots: readonly Snapshot[], names: readonly string[], gone?: readonly string[]]>([
    ['keep both names, and show the older one', [apart, together], ['a=foo+foo@h']],
    ['keep their own names when they part', [apart, together, apart], ['a=foo', 'b=foo@h']],
    ['keep the name when the named endpoint is gone', [together, [second]], ['b=foo']],
    ['keep both names when one endpoint is gone', [apart, together, [second]], ['b=foo+foo@h']],
    [
      'lose the name when the named endpoint is gone and the others part',
      [[instance('a', { ids: ['b', 'c'] })], [instance('b'), instance('c', { port: 2 })]],
      ['b=foo@h:1', 'c=foo@h:2'],
      ['foo'],
    ],
    [
      'do not pass the name on to another lineage under the same registration',
      [together, [instance('b', { lineage: 'other' })]],
      ['b=foo@h'],
      ['foo'],
    ],
    [
      'that are gone together count as one: both names go to a new process',
      [apart, together, [], [instance('c')]],
      ['c=foo+foo@h'],
    ],
  ])('%s', (_, snapshots, names, gone = []) => {
    expect(assignAll(...snapshots)).toEqual({ names, gone });
  });
});

describe('the text of a name', () => {
  const nameOf = (fields: Fields): string => assignAll([instance('a', fields)]).names[0]?.slice(2) ?? '';

  test.each([
    ['controls', 'f\u001b[31mo\u0000o', 'foo'],
    ['bidi characters', 'f\u202eo\u2066o', 'foo'],
    ['line breaks', 'f\noo', 'f oo'],
    ['surrounding spaces', '  foo  ', 'foo'],
    ['only spaces', '   ', 'opencode'],
    ['no characters', '', 'opencode'],
    ['only invisible characters', '\u200b\u2060', 'opencode'],
  ])('is cleaned if it has %s', (_, base, shown) => {
    expect(nameOf({ base })).toBe(shown);
  });

  test('is bounded, with and without a suffix', () => {
    expect(nameOf({ base: 'x'.repeat(200) })).toHaveLength(MAX_NAME_CHARS);
    const long = nameOf({ base: 'x'.repeat(200), host: 'y'.repeat(200), plain: false });
    expect(long.length).toBeLessThanOrEqual(MAX_NAME_CHARS);
    expect(long).toContain('@yyy');
  });
});

describe('for all histories', () => {
  const arbitraryInstance = fc.record({
    id: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
    base: fc.constantFrom('foo', 'bar', 'foo@x', 'foo@x:1', ''),
    host: fc.constantFrom('x', 'y'),
    port: fc.constantFrom(1, 2),
    alive: fc.boolean(),
    plain: fc.boolean(),
    pinned: fc.boolean(),
    processId: fc.option(fc.constantFrom('p', 'q'), { nil: undefined }),
  });
  const arbitrarySnapshot = fc
    .uniqueArray(arbitraryInstance, { selector: ({ id }) => id, maxLength: 6 })
    .map((list) =>
      list.map(({ id, processId, ...fields }) =>
        instance(id, { ...fields, ...(processId === undefined ? {} : { processId }) }),
      ),
    );
  const arbitraryHistory = fc.array(arbitrarySnapshot, { maxLength: 8 });
  /** Assigns names for any history, and checks each assignment. */
  const forEachAssignment = (checkOf: () => (assignment: Assignment, snapshot: Snapshot) => void): void => {
    fc.assert(
      fc.property(arbitraryHistory, (history) => {
        const check = checkOf();
        let state = NO_NAMES;
        for (const snapshot of history) {
          const assignment = assignNames(state, snapshot);
          state = assignment.state;
          check(assignment, snapshot);
        }
      }),
    );
  };

  test('every instance has a name that no other instance and no gone name has', () => {
    forEachAssignment(() => ({ named, gone }, snapshot) => {
      const live = [...named.values()].flatMap(({ name, aliases }) => [name, ...aliases]);
      const all = [...live, ...gone.map(({ name }) => name)];
      expect(new Set(all).size).toBe(all.length);
      expect([...named.keys()].toSorted()).toEqual(snapshot.map(({ key }) => key).toSorted());
    });
  });

  test('a name never moves to another lineage', () => {
    forEachAssignment(() => {
      const lineages = new Map<string, string>();
      return ({ named }, snapshot) => {
        for (const { key, members } of snapshot) {
          const { name = '', aliases = [] } = named.get(key) ?? {};
          for (const one of [name, ...aliases]) {
            expect(lineages.get(one) ?? members[0].lineage).toBe(members[0].lineage);
            lineages.set(one, members[0].lineage);
          }
        }
      };
    });
  });

  test('no name is ever forgotten', () => {
    forEachAssignment(() => {
      const seen = new Set<string>();
      return ({ state }) => {
        for (const name of state.records.keys()) seen.add(name);
        expect([...seen].filter((name) => !state.records.has(name))).toEqual([]);
      };
    });
  });

  test('the order of arrival within a snapshot does not matter', () => {
    fc.assert(
      fc.property(arbitraryHistory, (history) => {
        expect(assignAll(...history.map((snapshot) => snapshot.toReversed()))).toEqual(assignAll(...history));
      }),
    );
  });

  test('a listed instance keeps its name', () => {
    fc.assert(
      fc.property(arbitrarySnapshot, arbitrarySnapshot, (before, after) => {
        const first = assignNames(NO_NAMES, before);
        const second = assignNames(first.state, [...before, ...after.filter(({ key }) => !first.named.has(key))]);
        for (const { key } of before) expect(second.named.get(key)?.name).toBe(first.named.get(key)?.name);
      }),
    );
  });
});
