import { describe, expect, test } from 'vitest';

import { changesBetween, History } from '../../src/directory/history.ts';
import type { GoneInstance, Instance, ProbedEndpoint, Snapshot } from '../../src/directory/instance.ts';
import { merge } from '../../src/directory/merge.ts';
import { DEAD, probed } from './candidates.ts';

const way = (key: string, fields: Omit<Parameters<typeof probed>[0], 'key' | 'url'> = {}): ProbedEndpoint =>
  probed({ key, url: `http://${key}:1`, ...fields });

function instance(name: string, [first, ...rest]: readonly ProbedEndpoint[], fields: Partial<Instance> = {}): Instance {
  if (first === undefined) throw new Error('Expected an endpoint');
  // In the order in which they are preferred.
  const pairs = rest.map((other) => [first, other].map(({ candidate }) => candidate.endpoint.url) as [string, string]);
  const [merged] = merge([first, ...rest], { proven: pairs, former: pairs }).instances;
  if (merged === undefined) throw new Error('Expected an instance');
  const dead = merged.endpoints[0].result.status === 'unhealthy';
  return {
    ...merged,
    name,
    host: 'h',
    state: dead ? 'offline' : 'idle',
    ...(dead && { reason: 'ECONNREFUSED' }),
    ...fields,
  };
}

function snapshot(instances: readonly Instance[], gone: readonly GoneInstance[] = []): Snapshot {
  return { instances, gone, sources: [], notes: [] };
}

const told = (before: readonly Instance[], after: readonly Instance[], gone?: readonly GoneInstance[]): string[] =>
  changesBetween(snapshot(before), snapshot(after, gone)).map(({ name, kind, what }) => `${name} ${kind}: ${what}`);

const tailnet = way('t', { route: 'tailnet' });
const relay = way('r', { route: 'relay' });
const down = (endpoint: ProbedEndpoint): ProbedEndpoint => ({ ...endpoint, result: DEAD });

describe('what is told of an instance', () => {
  test.each<[string, readonly Instance[], readonly Instance[], readonly string[]]>([
    ['nothing, where nothing changed', [instance('a', [tailnet])], [instance('a', [tailnet])], []],
    ['that it is seen, how and by whom', [], [instance('a', [tailnet])], ['a seen: by tailnet http://t:1 (test)']],
    [
      'that it was registered and does not answer',
      [],
      [instance('a', [down(tailnet)])],
      ['a seen: by tailnet http://t:1 (test), offline: ECONNREFUSED'],
    ],
    ['that it is lost, and why', [instance('a', [relay])], [instance('a', [down(relay)])], ['a lost: ECONNREFUSED']],
    [
      'that it answers again',
      [instance('a', [down(relay)])],
      [instance('a', [relay])],
      ['a seen: answers again by relay http://r:1'],
    ],
    [
      'that its way failed, and by which it goes on',
      [instance('a', [tailnet, relay])],
      [instance('a', [down(tailnet), relay])],
      ['a moved: from tailnet http://t:1 to relay http://r:1: ECONNREFUSED'],
    ],
    [
      'that its way is back',
      [instance('a', [down(tailnet), relay])],
      [instance('a', [tailnet, relay])],
      ['a moved: from relay http://r:1 to tailnet http://t:1: it is the better one'],
    ],
    [
      'that a better way joined',
      [instance('a', [relay])],
      [instance('a', [tailnet, relay])],
      [
        'a moved: from relay http://r:1 to tailnet http://t:1: it is the better one',
        'a joined: tailnet http://t:1 leads here too',
      ],
    ],
    [
      'that two entries proved to be one',
      [instance('a', [relay]), instance('b', [tailnet])],
      [instance('a', [tailnet, relay], { aliases: ['b'] })],
      [
        'a moved: from relay http://r:1 to tailnet http://t:1: it is the better one',
        'a joined: tailnet http://t:1 leads here too; it was shown as b',
      ],
    ],
    [
      'that a way parted, and under which name it is shown',
      [instance('a', [tailnet, relay], { aliases: ['b'] })],
      [instance('a', [tailnet]), instance('b', [relay])],
      [
        'a parted: relay http://r:1 is shown as b: nothing proves now that they are one',
        'b moved: from tailnet http://t:1 to relay http://r:1: the old one is not known to lead there any more',
      ],
    ],
    [
      'that a way of it is gone',
      [instance('a', [tailnet, relay])],
      [instance('a', [tailnet])],
      ['a parted: relay http://r:1 is not registered any more, or is to be proven again'],
    ],
  ])('%s', (_, before, after, expected) => {
    expect(told(before, after)).toEqual(expected);
  });

  test('that it is gone, for the reason that its name is given', () => {
    const gone = [{ name: 'a', host: 'h', reason: 'it is no longer registered' }];
    expect(told([instance('a', [relay])], [], gone)).toEqual(['a gone: it is no longer registered']);
  });

  test('what a machine says of itself cannot leave its line', () => {
    const evil = instance('a', [down(relay)], { reason: `x\u001b[2J\n${'y'.repeat(1000)}` });
    const [line = ''] = told([instance('a', [relay])], [evil]);
    expect(line.length).toBeLessThan(320);
    // eslint-disable-next-line no-control-regex -- that is what must not be there
    expect(line).not.toMatch(/[\u0000-\u001f]/);
  });
});

describe('the ring', () => {
  const seen = (history: History, name: string, atMs: number): void =>
    history.observe(snapshot([]), snapshot([instance(name, [relay])]), atMs);

  test('keeps the newest two hundred', () => {
    const history = new History();
    for (let index = 0; index < 250; index += 1) seen(history, `n${index}`, index);
    expect([history.changes().length, history.changes()[0]?.name, history.changes().at(-1)?.name]).toEqual([
      200,
      'n50',
      'n249',
    ]);
  });

  test('keeps two hundred of a big fleet that is seen at once', () => {
    const history = new History();
    const fleet = Array.from({ length: 1000 }, (_, index) => instance(`n${index}`, [relay]));
    history.observe(snapshot([]), snapshot(fleet), 1);
    expect(history.changes()).toHaveLength(200);
  });

  test('counts what happens again, with its first and its last time, as the newest', () => {
    const history = new History();
    seen(history, 'a', 1);
    seen(history, 'b', 2);
    seen(history, 'a', 3);
    expect(history.changes()).toMatchObject([
      { name: 'b', sinceMs: 2, atMs: 2, times: 1 },
      { name: 'a', sinceMs: 1, atMs: 3, times: 2 },
    ]);
  });

  test('what one does that comes and goes does not push out what others did', () => {
    const history = new History();
    seen(history, 'other', 0);
    const up = snapshot([instance('a', [relay])]);
    const off = snapshot([instance('a', [down(relay)])]);
    for (let flap = 0; flap < 1000; flap += 1) {
      history.observe(up, off, flap);
      history.observe(off, up, flap);
    }
    expect(history.changes().map(({ name, times }) => `${name} ${times}`)).toEqual(['other 1', 'a 1000', 'a 1000']);
  });
});
