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
    'each request of %s gets its result, and each listener its acknowledgement',
    async (file) => {
      const lines = readFileSync(join(FOLDER, file), 'utf8').trimEnd().split('\n');
      const requests = lines.map((line) => JSON.parse(line) as Line).filter(({ id }) => id !== undefined);
      await using server = startRawServer();
      server.write(...lines.map((line) => `${line}\n`));
      const answers = (): Answer[] => server.stdout.map((line) => JSON.parse(line) as Answer);
      const wanted = requests.filter(({ method }) => method !== 'subscriptions/listen');
      await until('the answers', () => wanted.every(({ id }) => answers().some((one) => one.id === id)));
      expect(answers().filter(({ error }) => error !== undefined)).toEqual([]);
      expect(answers().filter(({ method }) => method === 'notifications/subscriptions/acknowledged')).toHaveLength(
        requests.length - wanted.length,
      );
      // A client gets no message of the other protocol version.
      const isModern = lines.some((line) => line.includes('clientCapabilities'));
      expect(server.stdout.some((line) => line.includes('resultType'))).toBe(isModern);
    },
  );
});
