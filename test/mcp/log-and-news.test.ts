import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import type { Instance, Snapshot } from '../../src/model/instance.ts';
import { silentLogger } from '../../src/base/log.ts';
import { ClientLog } from '../../src/mcp/features/client-log.ts';
import { FleetNews, MAX_SUBSCRIPTIONS } from '../../src/mcp/features/fleet-news.ts';

/** A client that reads pending messages only on demand. */
class Unread {
  readonly sent: string[] = [];
  #reading: (() => void)[] = [];

  take(what: string): Promise<void> {
    this.sent.push(what);
    return new Promise((resolve) => this.#reading.push(resolve));
  }

  async read(): Promise<void> {
    const reading = this.#reading;
    this.#reading = [];
    for (const resolve of reading) resolve();
    await nextTurn();
  }
}

test('a log line is sent once, if any session or request asked for its level', () => {
  const sent: unknown[] = [];
  const log = new ClientLog(async (_, { data }) => void sent.push((data as { message: string }).message));
  const logger = log.beside(silentLogger);
  const [session, request] = [{}, {}];
  logger.log('error', 'unwanted');
  log.setLevel(session, 'error');
  log.setLevel(request, 'info');
  logger.log('info', 'one');
  logger.log('error', 'two');
  log.setLevel(request, undefined);
  logger.log('info', 'too low');
  expect(sent).toEqual(['one', 'two']);
});

test('subscriptions are limited; a client that drops one has room for another', () => {
  const none = { instances: [] };
  const news = new FleetNews(async () => {});
  for (let index = 0; index < MAX_SUBSCRIPTIONS; index += 1) news.subscribe(`opencode://${index}`, none);
  expect(news.subscribe('opencode://a', none)).toBe(false);
  news.unsubscribe('opencode://0');
  expect(news.subscribe('opencode://a', none)).toBe(true);
});

describe('a client that does not read', () => {
  test('gets a bounded log, and more once it reads again', async () => {
    const client = new Unread();
    const log = new ClientLog((_, { data }) => client.take((data as { message: string }).message));
    log.setLevel({}, 'warning');
    const logger = log.beside(silentLogger);
    for (let index = 0; index < 10_000; index += 1) logger.log('warn', `line ${index}`);
    expect(client.sent).toHaveLength(100);
    await client.read();
    logger.log('warn', 'after');
    expect(client.sent.at(-1)).toBe('after');
  });

  test('is notified once, of all that has changed when it reads', async () => {
    const snapshot = (...instances: readonly (readonly [string, string])[]): Snapshot =>
      ({ instances: instances.map(([name, state]) => ({ name, state }) as Instance) }) as unknown as Snapshot;
    const client = new Unread();
    const news = new FleetNews((_, { uri = 'list' }) => client.take(String(uri)));
    news.subscribe('opencode://a', snapshot(['a', 'idle']));
    news.listed(snapshot(['a', 'idle']));
    for (let round = 0; round < 1_000; round += 1)
      news.changed(() => snapshot(['a', round % 2 === 0 ? 'busy' : 'waiting']));
    news.changed(() => snapshot(['a', 'idle'], ['b', 'idle']));
    expect(client.sent).toEqual(['opencode://a']);
    await client.read();
    expect(client.sent).toEqual(['opencode://a', 'list', 'opencode://a']);
    await client.read();
    expect(client.sent).toHaveLength(3);
  });
});
