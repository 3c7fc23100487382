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

/** One endpoint `id` (or several), a lineage of its name and host. */
function instance(id: string, fields: Fields = {}): Nameable {
  const { base = 'foo', host = 'h', port = 1, ids = [], lineage = `${base} ${host}`, ...rest } = fields;
  const [first, ...others] = [id, ...ids].map((member) => ({ id: member, lineage }));
  if (first === undefined) throw new Error('no endpoint');
  return { key: id, members: [first, ...others], base, host, port, pinned: false, alive: true, plain: true, ...rest };
}

/** Shows one snapshot after the other, and tells the names of the last: `id=name+alias`. */
function show(...snapshots: ReadonlyArray<readonly Nameable[]>): { readonly names: string[]; readonly gone: string[] } {
  let state: NameState = NO_NAMES;
  let last: Assignment | undefined;
  for (const snapshot of snapshots) {
    last = assignNames(state, snapshot);
    state = last.state;
  }
  const names = [...(last?.named ?? [])].map(([key, { name, aliases }]) => `${key}=${[name, ...aliases].join('+')}`);
  return { names: names.toSorted(), gone: (last?.gone ?? []).map(({ name }) => name) };
}

describe('equal names in one snapshot', () => {
  test('one alone gets its bare name', () => {
    expect(show([instance('a')]).names).toEqual(['a=foo']);
  });

  test('on different hosts, each gets its host', () => {
    expect(show([instance('a', { host: 'x' }), instance('b', { host: 'y' })]).names).toEqual(['a=foo@x', 'b=foo@y']);
  });

  test('on one host, each gets its port', () => {
    expect(show([instance('a', { port: 1 }), instance('b', { port: 2 })]).names).toEqual(['a=foo@h:1', 'b=foo@h:2']);
  });

  test('on one port, they are numbered', () => {
    expect(show([instance('a'), instance('b')]).names).toEqual(['a=foo@h:1#2', 'b=foo@h:1#3']);
  });

  test('one that answers has precedence', () => {
    const dead = { alive: false };
    expect(
      show([instance('a', { ...dead, port: 2 }), instance('b'), instance('c', { ...dead, port: 3 })]).names,
    ).toEqual(['a=foo@h:2', 'b=foo', 'c=foo@h:3']);
  });

  test('a configured name has precedence over one that answers', () => {
    expect(show([instance('a'), instance('b', { pinned: true, alive: false, host: 'x' })]).names).toEqual([
      'a=foo@h',
      'b=foo',
    ]);
  });

  test('two endpoints of one process do not compete: the first gets the bare name', () => {
    const processId = 'p';
    expect(show([instance('a', { processId }), instance('b', { processId, port: 2 })]).names).toEqual([
      'a=foo',
      'b=foo@h',
    ]);
  });

  test('a LAN advertisement never gets a bare name', () => {
    expect(show([instance('a', { plain: false })]).names).toEqual(['a=foo@h']);
    expect(show([instance('a', { plain: false })], [instance('a', { plain: false }), instance('b')]).names).toEqual([
      'a=foo@h',
      'b=foo',
    ]);
  });

  test('a claimed name does not collide with a generated one', () => {
    const names = show([
      instance('a', { base: 'foo@h' }),
      instance('b', { port: 2 }),
      instance('c', { port: 3, plain: false }),
    ]).names;
    expect(new Set(names.map((name) => name.split('=')[1])).size).toBe(3);
  });

  test('ten thousand equal names are numbered in linear time', () => {
    const many = Array.from({ length: 10_000 }, (_, index) => instance(`k${index}`));
    expect(new Set(show(many).names.map((name) => name.split('=')[1])).size).toBe(10_000);
  });
});

describe('a name that was shown', () => {
  test('stays with its instance when an equal one appears', () => {
    expect(show([instance('b')], [instance('a', { host: 'x' }), instance('b')]).names).toEqual(['a=foo@x', 'b=foo']);
  });

  test('is not given to a later instance after its own is gone', () => {
    expect(show([instance('a')], [], [instance('b', { host: 'x' })])).toEqual({ names: ['b=foo@x'], gone: ['foo'] });
  });

  test('with a host leaves no bare name for a third instance', () => {
    const two = [instance('a', { host: 'x' }), instance('b', { host: 'y' })];
    expect(show(two, [...two, instance('c', { host: 'z' })]).names).toEqual(['a=foo@x', 'b=foo@y', 'c=foo@z']);
  });

  test('stays with its instance when it comes back', () => {
    expect(show([instance('a')], [], [instance('a'), instance('b', { host: 'x' })]).names).toEqual([
      'a=foo',
      'b=foo@x',
    ]);
  });

  test('goes to a new process of the same lineage', () => {
    expect(show([instance('a')], [], [instance('b')])).toEqual({ names: ['b=foo'], gone: [] });
    expect(show([instance('a')], [instance('b')])).toEqual({ names: ['b=foo'], gone: [] });
  });

  test('does not go to a new process while the old one is listed', () => {
    expect(show([instance('a')], [instance('a'), instance('b')]).names).toEqual(['a=foo', 'b=foo@h']);
    expect(show([instance('a')], [instance('a', { alive: false }), instance('b')]).names).toEqual(['a=foo', 'b=foo@h']);
  });

  test('does not go to a new process if two of its lineage are gone', () => {
    const two = [instance('a', { port: 1 }), instance('b', { port: 2 })];
    expect(show(two, [], [instance('c', { port: 3 })]).names).toEqual(['c=foo']);
    expect(show([instance('a')], two, [], [instance('c', { port: 3 })])).toEqual({
      names: ['c=foo@h:3'],
      gone: ['foo', 'foo@h'],
    });
  });

  test('goes to neither of two new processes of its lineage', () => {
    expect(show([instance('a')], [], [instance('b', { port: 2 }), instance('c', { port: 3 })])).toEqual({
      names: ['b=foo@h:2', 'c=foo@h:3'],
      gone: ['foo'],
    });
  });

  test('goes to the better of two endpoints of one new process', () => {
    const processId = 'p';
    expect(
      show([instance('a')], [], [instance('b', { processId }), instance('c', { processId, port: 2 })]).names,
    ).toEqual(['b=foo', 'c=foo@h']);
  });

  test('stays with a process whose machine is renamed', () => {
    const [before, after] = [instance('a', { host: 'old' }), instance('a', { host: 'new' })];
    const as = (shown: Nameable, processId: string): Nameable => ({
      ...shown,
      members: [{ ...shown.members[0], processId }],
    });
    expect(show([as(before, 'p')], [as(after, 'p')])).toEqual({ names: ['a=foo'], gone: [] });
    expect(show([as(before, 'p')], [as(after, 'q')])).toEqual({ names: ['a=foo@new'], gone: ['foo'] });
  });

  test('does not go to another lineage under the same registration', () => {
    expect(show([instance('a')], [instance('a', { lineage: 'other' })])).toEqual({ names: ['a=foo@h'], gone: ['foo'] });
  });
});

describe('entries that are proven to be one', () => {
  const apart = [instance('a', { processId: 'p' }), instance('b', { processId: 'p', port: 2 })];
  const together = [instance('a', { processId: 'p', ids: ['b'] })];

  test('keep both names, the older one shown', () => {
    expect(show(apart, together)).toEqual({ names: ['a=foo+foo@h'], gone: [] });
  });

  test('keep their own names when they part', () => {
    expect(show(apart, together, apart).names).toEqual(['a=foo', 'b=foo@h']);
  });

  test('keep the name when the endpoint that it was given to is gone', () => {
    expect(show(together, [instance('b', { processId: 'p' })])).toEqual({ names: ['b=foo'], gone: [] });
    expect(show(apart, together, [instance('b', { processId: 'p' })])).toEqual({ names: ['b=foo+foo@h'], gone: [] });
  });

  test('do not pass it on to another lineage under the same registration', () => {
    expect(show(together, [instance('b', { lineage: 'other' })])).toEqual({ names: ['b=foo@h'], gone: ['foo'] });
  });

  test('that are gone together count as one: both names go to a new process', () => {
    expect(show(apart, together, [], [instance('c')])).toEqual({ names: ['c=foo+foo@h'], gone: [] });
  });
});

describe('the text of a name', () => {
  const nameOf = (fields: Fields): string => show([instance('a', fields)]).names[0]?.slice(2) ?? '';

  test.each([
    ['controls', 'f\u001b[31mo\u0000o', 'foo'],
    ['bidi characters', 'f\u202eo\u2066o', 'foo'],
    ['line breaks', 'f\noo', 'f oo'],
    ['surrounding spaces', '  foo  ', 'foo'],
    ['nothing but spaces', '   ', 'opencode'],
    ['nothing', '', 'opencode'],
    ['nothing but invisible characters', '\u200b\u2060', 'opencode'],
  ])('%s are not shown', (_, base, shown) => {
    expect(nameOf({ base })).toBe(shown);
  });

  test('is bounded, with a suffix too', () => {
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

  test('every instance has a name, unique also among gone ones', () => {
    fc.assert(
      fc.property(arbitraryHistory, (history) => {
        let state = NO_NAMES;
        for (const snapshot of history) {
          const assignment = assignNames(state, snapshot);
          state = assignment.state;
          const live = [...assignment.named.values()].flatMap(({ name, aliases }) => [name, ...aliases]);
          const all = [...live, ...assignment.gone.map(({ name }) => name)];
          expect(new Set(all).size).toBe(all.length);
          expect([...assignment.named.keys()].toSorted()).toEqual(snapshot.map(({ key }) => key).toSorted());
        }
      }),
    );
  });

  test('a name never moves to another lineage', () => {
    fc.assert(
      fc.property(arbitraryHistory, (history) => {
        let state = NO_NAMES;
        const lineages = new Map<string, string>();
        for (const snapshot of history) {
          const assignment = assignNames(state, snapshot);
          state = assignment.state;
          for (const { key, members } of snapshot) {
            const named = assignment.named.get(key);
            for (const name of [named?.name ?? '', ...(named?.aliases ?? [])]) {
              expect(lineages.get(name) ?? members[0].lineage).toBe(members[0].lineage);
              lineages.set(name, members[0].lineage);
            }
          }
        }
      }),
    );
  });

  test('no name is ever forgotten', () => {
    fc.assert(
      fc.property(arbitraryHistory, (history) => {
        let state = NO_NAMES;
        const seen = new Set<string>();
        for (const snapshot of history) {
          ({ state } = assignNames(state, snapshot));
          for (const name of state.records.keys()) seen.add(name);
          expect([...seen].filter((name) => !state.records.has(name))).toEqual([]);
        }
      }),
    );
  });

  test('the order of arrival within a snapshot does not matter', () => {
    fc.assert(
      fc.property(arbitraryHistory, (history) => {
        expect(show(...history.map((snapshot) => snapshot.toReversed()))).toEqual(show(...history));
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
