import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { until } from '../rig/wait.ts';
import { startRawServer } from './raw-server.ts';

/** The first lines that real clients wrote to the server. */
const FOLDER = join(import.meta.dirname, 'recorded');

interface Line {
  readonly id?: string | number;
  readonly method: string;
}

interface Answer {
  readonly id?: string | number;
  readonly method?: string;
  readonly result?: object;
  readonly error?: object;
}

describe('the recorded first messages of a real client', () => {
  test.each(readdirSync(FOLDER))(
    '%s: each request gets its result, each listener its acknowledgement',
    async (file) => {
      const lines = readFileSync(join(FOLDER, file), 'utf8').trimEnd().split('\n');
      const asked = lines.map((line) => JSON.parse(line) as Line).filter(({ id }) => id !== undefined);
      await using server = startRawServer();
      server.write(...lines.map((line) => `${line}\n`));
      const told = (): Answer[] => server.stdout.map((line) => JSON.parse(line) as Answer);
      const wanted = asked.filter(({ method }) => method !== 'subscriptions/listen');
      await until('the answers', () => wanted.every(({ id }) => told().some((one) => one.id === id)));
      expect(told().filter(({ error }) => error !== undefined)).toEqual([]);
      expect(told().filter(({ method }) => method === 'notifications/subscriptions/acknowledged')).toHaveLength(
        asked.length - wanted.length,
      );
      // A client of one era gets nothing of the other.
      const isModern = lines.some((line) => line.includes('clientCapabilities'));
      expect(server.stdout.some((line) => line.includes('resultType'))).toBe(isModern);
    },
  );
});
