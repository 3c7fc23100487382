import { describe, expect, test } from 'vitest';

import { QueryError } from '../../src/fleet/contract.ts';
import type { GoneInstance, Instance } from '../../src/model/instance.ts';
import { findInstance } from '../../src/fleet/query.ts';
import type { Route } from '../../src/model/candidate.ts';
import { probed } from './candidates.ts';

const NOW_MS = 1_700_000_000_000;

function live(
  name: string,
  fields: { readonly route?: Route; readonly pinned?: true; readonly aliases?: string[] } = {},
): Instance {
  const { aliases, ...rest } = fields;
  const endpoint = probed({ key: name, ...rest });
  return {
    server: { key: endpoint.id, claims: {}, endpoints: [endpoint] },
    key: endpoint.id,
    name,
    host: 'box',
    state: 'idle',
    ...(aliases === undefined ? {} : { aliases }),
  };
}

/** The instance of a whole OpenCode 2 service. */
function service(name: string): Instance {
  const { server, ...rest } = live(name);
  return { ...rest, server: { ...server, claims: { service: {} } } };
}

function gone(name: string, fields: Partial<GoneInstance> = {}): GoneInstance {
  return { name, host: 'box', reason: 'it is no longer registered', ...fields };
}

function find(query: string, instances: readonly Instance[], lost: readonly GoneInstance[] = []): string {
  return findInstance(query, instances, lost, NOW_MS).name;
}

function errorOf(query: string, instances: readonly Instance[], lost: readonly GoneInstance[] = []): string {
  try {
    return `found ${find(query, instances, lost)}`;
  } catch (error) {
    if (error instanceof QueryError) return error.message;
    throw error;
  }
}

describe('finds', () => {
  test.each<[string, string, readonly Instance[], string, ...GoneInstance[]]>([
    ['an exact name that is a part of others', 'web', [live('web-2'), live('web'), live('my-web')], 'web'],
    ['an exact name even if a gone instance matches', 'web', [live('web')], 'web', gone('web@box')],
    ['a part of one name, whatever its case', 'API', [live('web'), live('my-api-server')], 'my-api-server'],
    ['a name from before two entries were joined', 'web@box', [live('web', { aliases: ['web@box'] })], 'web'],
    ['a part of an earlier name', '@bo', [live('web', { aliases: ['web@box'] })], 'web'],
    ['a name with spaces around it', '  web ', [live('web')], 'web'],
    ['the full name of a LAN announcement', 'web', [live('web', { route: 'lan' })], 'web'],
    [
      "a part of a directory's name, although the name of its OpenCode 2 service contains it too",
      'lap',
      [service('laptop:service'), { ...live('laptop-web'), directory: '/srv/web' }],
      'laptop-web',
    ],
    ['a part of a configured name on the LAN', 'we', [live('web', { route: 'lan', pinned: true })], 'web'],
  ])('%s', (_, query, instances, name, ...lost) => {
    expect(find(query, instances, lost)).toBe(name);
  });
});

describe('never guesses', () => {
  test.each<[string, string, readonly Instance[], string, ...GoneInstance[]]>([
    [
      'without a name',
      ' ',
      [live('web')],
      'No instance was named. Known instances: web (box, idle); call instances for details.',
    ],
    [
      'if nothing matches',
      'nope',
      [live('web')],
      'No instance fits "nope". Known instances: web (box, idle); call instances for details.',
    ],
    [
      'if nothing is known',
      'nope',
      [],
      'No instance fits "nope". No instance is known now; call refresh_instances to search again.',
    ],
    [
      'if several match',
      'we',
      [live('web'), live('web-2'), live('api')],
      '"we" fits 2 instances: web (box, idle), web-2 (box, idle). Give the full name of one.',
    ],
    [
      'if an exact name differs in case',
      'WEB',
      [live('web'), live('Web')],
      '"WEB" fits 2 instances: web (box, idle), Web (box, idle). Give the full name of one.',
    ],
    [
      'if the exact name belongs to a gone instance',
      'web',
      [live('web@other'), live('api')],
      'web (box, /srv/web) is gone: it is no longer registered; it last answered 90 s ago. Similar instances: web@other (box, idle). Give the full name of the one you mean.',
      gone('web', { directory: '/srv/web', lastSeenMs: NOW_MS - 90_000 }),
    ],
    [
      'if a part matches a live and a gone instance',
      'we',
      [live('web-2')],
      '"we" fits an instance that is gone. web (box) is gone: it is no longer registered; it last answered 3 h ago. Known instances with such a name: web-2 (box, idle). Give the full name of the one you mean.',
      gone('web', { lastSeenMs: NOW_MS - 3 * 3_600_000 }),
    ],
    [
      'if a part matches only a gone instance',
      'we',
      [live('api')],
      '"we" fits an instance that is gone. web (box) is gone: it is no longer registered; it never answered. Known instances: api (box, idle); call instances for details.',
      gone('web'),
    ],
    [
      'if a part matches a LAN announcement',
      'we',
      [live('web', { route: 'lan' })],
      '"we" is only a part of web, which was found by its own announcement on the local network, where anyone can announce any name. Give its full name if you mean it.',
    ],
  ])('%s', (_, query, instances, message, ...lost) => {
    expect(errorOf(query, instances, lost)).toBe(message);
  });
});

describe('an error message', () => {
  const many = Array.from({ length: 50 }, (_, index) => live(`web-${String(index).padStart(2, '0')}`));

  test('lists twenty names and the number of others', () => {
    const message = errorOf('web', many);
    expect(message).toContain('"web" fits 50 instances: web-00');
    expect(message).toContain('web-19 (box, idle) and 30 more');
    const lost = many.map(({ name }) => gone(name));
    expect(errorOf('web', [], lost)).toContain('and 30 more');
  });

  test('shows the query as one short line', () => {
    const message = errorOf(`x\n\u001b[31m${'y'.repeat(5000)}`, []);
    expect(message.length).toBeLessThan(300);
    expect(message).not.toContain('\n');
  });
});
