import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import type { Instance, Snapshot } from '../../src/model/instance.ts';
import { silentLogger } from '../../src/base/log.ts';
import { ClientLog } from '../../src/mcp/features/client-log.ts';
import { FleetNews, MAX_SUBSCRIPTIONS } from '../../src/mcp/features/fleet-news.ts';

/** A client that reads pending messages only on demand. */
class PausedClient {
  readonly sent: string[] = [];
  #pending: (() => void)[] = [];

  receive(message: string): Promise<void> {
    this.sent.push(message);
    return new Promise((resolve) => this.#pending.push(resolve));
  }

  async read(): Promise<void> {
    const pending = this.#pending;
    this.#pending = [];
    for (const resolve of pending) resolve();
    await nextTurn();
  }
}

test('a log line is sent once, however many sessions and requests set a level that includes it', () => {
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

test('subscriptions are limited; a client that ends a subscription can begin another', () => {
  const none = { instances: [] };
  const news = new FleetNews(async () => {});
  for (let index = 0; index < MAX_SUBSCRIPTIONS; index += 1) news.subscribe(`opencode://${index}`, none);
  expect(news.subscribe('opencode://a', none)).toBe(false);
  news.unsubscribe('opencode://0');
  expect(news.subscribe('opencode://a', none)).toBe(true);
});

describe('a client that does not read', () => {
  test('gets a limited number of log lines, and further lines once it reads again', async () => {
    const client = new PausedClient();
    const log = new ClientLog((_, { data }) => client.receive((data as { message: string }).message));
    log.setLevel({}, 'warning');
    const logger = log.beside(silentLogger);
    for (let index = 0; index < 10_000; index += 1) logger.log('warn', `line ${index}`);
    expect(client.sent).toHaveLength(100);
    await client.read();
    logger.log('warn', 'after');
    expect(client.sent.at(-1)).toBe('after');
  });

  test('is notified once, and when it reads, of everything that has changed since', async () => {
    const snapshot = (...instances: readonly (readonly [string, string])[]): Snapshot =>
      ({ instances: instances.map(([name, state]) => ({ name, state }) as Instance) }) as unknown as Snapshot;
    const client = new PausedClient();
    const news = new FleetNews((_, { uri = 'list' }) => client.receive(String(uri)));
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
