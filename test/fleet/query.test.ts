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
  test('an exact name that is a part of others', () => {
    expect(find('web', [live('web-2'), live('web'), live('my-web')])).toBe('web');
  });

  test('an exact name although a gone one fits', () => {
    expect(find('web', [live('web')], [gone('web@box')])).toBe('web');
  });

  test('a part of one name, whatever its case', () => {
    expect(find('API', [live('web'), live('my-api-server')])).toBe('my-api-server');
  });

  test('a name from before two entries were joined', () => {
    expect(find('web@box', [live('web', { aliases: ['web@box'] })])).toBe('web');
    expect(find('@bo', [live('web', { aliases: ['web@box'] })])).toBe('web');
  });

  test('a name with spaces around it', () => {
    expect(find('  web ', [live('web')])).toBe('web');
  });
});

describe('never guesses', () => {
  test('an empty query is an error', () => {
    expect(errorOf(' ', [live('web')])).toBe(
      'No instance was named. Known instances: web (box, idle); call instances for details.',
    );
  });

  test('a query that fits none is an error that lists the instances', () => {
    expect(errorOf('nope', [live('web')])).toBe(
      'No instance fits "nope". Known instances: web (box, idle); call instances for details.',
    );
    expect(errorOf('nope', [])).toBe(
      'No instance fits "nope". No instance is known now; call refresh_instances to search again.',
    );
  });

  test('a query that fits several is an error that lists them', () => {
    expect(errorOf('we', [live('web'), live('web-2'), live('api')])).toBe(
      '"we" fits 2 instances: web (box, idle), web-2 (box, idle). Give the full name of one.',
    );
  });

  test('exact names are exact in case too', () => {
    expect(errorOf('WEB', [live('web'), live('Web')])).toContain('"WEB" fits 2 instances');
  });

  test('the exact name of a gone one is an error with the time, the reason and similar ones', () => {
    const lost = gone('web', { directory: '/srv/web', lastSeenMs: NOW_MS - 90_000 });
    expect(errorOf('web', [live('web@other'), live('api')], [lost])).toBe(
      'web (box, /srv/web) is gone: it is no longer registered; it last answered 90 s ago. Similar instances: web@other (box, idle). Give the full name of the one you mean.',
    );
    expect(errorOf('web', [live('web-2')], [gone('web')])).toContain('it never answered');
  });

  test('a part that fits a live one and a gone one is an error', () => {
    const message = errorOf('we', [live('web-2')], [gone('web', { lastSeenMs: NOW_MS - 3 * 3_600_000 })]);
    expect(message).toBe(
      '"we" fits an instance that is gone. web (box) is gone: it is no longer registered; it last answered 3 h ago. Known instances with such a name: web-2 (box, idle). Give the full name of the one you mean.',
    );
  });

  test('a part that fits only a gone one is an error', () => {
    expect(errorOf('we', [live('api')], [gone('web')])).toContain('"we" fits an instance that is gone. web (box)');
  });

  test('a part never leads to a LAN announcement; its full name does', () => {
    expect(errorOf('we', [live('web', { route: 'lan' })])).toContain(
      'anyone can announce any name. Give its full name',
    );
    expect(find('web', [live('web', { route: 'lan' })])).toBe('web');
    expect(find('we', [live('web', { route: 'lan', pinned: true })])).toBe('web');
  });
});

describe('errors are bounded', () => {
  const many = Array.from({ length: 50 }, (_, index) => live(`web-${String(index).padStart(2, '0')}`));

  test('twenty names, then how many more', () => {
    const message = errorOf('web', many);
    expect(message).toContain('"web" fits 50 instances: web-00');
    expect(message).toContain('web-19 (box, idle) and 30 more');
    expect(
      errorOf(
        'web',
        [],
        many.map(({ name }) => gone(name)),
      ),
    ).toContain('and 30 more');
  });

  test('a query is shown as one short line', () => {
    const message = errorOf(`x\n\u001b[31m${'y'.repeat(5000)}`, []);
    expect(message.length).toBeLessThan(300);
    expect(message).not.toContain('\n');
  });
});
