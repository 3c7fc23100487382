import * as fc from 'fast-check';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { SettingsError } from '../../src/config/settings.ts';
import { load, type Case } from './load-case.ts';

const MARK = 'hunter2';

/** All errors and warnings of loading a case. */
function messagesOf(testCase: Case): string {
  try {
    return load(testCase).warnings.join('\n');
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return inspect(error, { depth: 10 });
  }
}

describe('errors and warnings contain no secret', () => {
  // Every field for a secret gets the mark, as a valid and as an invalid value, among other mistakes.
  const secret = fc.oneof(
    fc.constantFrom<unknown>(
      MARK,
      `${MARK}\n`,
      `${MARK}\0`,
      `\u202e${MARK}`,
      [MARK],
      [[MARK]],
      { value: MARK },
      { env: `$${MARK}` },
      { env: 'PW', [MARK]: 1 },
    ),
    fc.constantFrom<unknown>(
      { env: 'PW' },
      { env: [MARK] },
      { file: '/pw' },
      { file: [MARK] },
      { command: ['pass', MARK] },
      { command: ['\0', MARK] },
      { command: MARK },
    ),
  );
  const misplaced = fc.constantFrom<unknown>(MARK, [MARK]);
  const url = fc.constantFrom(
    `http://u:${MARK}@h`,
    `u:${MARK}@h`,
    `http://h?k=${MARK}`,
    `http://h/#${MARK}`,
    `http://u:${MARK} @h:99999`,
    'http://h',
    7,
  );
  const headers = fc.oneof(
    misplaced,
    fc.dictionary(
      fc.constantFrom('X-A', 'Authorization', 'Host', `X-B: ${MARK}`, `X-C=${MARK}`, `X D ${MARK}`),
      secret,
    ),
  );
  const entry = fc.record(
    {
      name: fc.constantFrom<unknown>('a', '', 5),
      hosts: secret,
      source: fc.constant('mdns'),
      url,
      headers,
      username: fc.constantFrom<unknown>('a:b', 'a', null),
      password: secret,
    },
    { requiredKeys: [] },
  );
  const channel = fc.record(
    {
      type: fc.constantFrom('ntfy', 'webhook', 'command'),
      url,
      topic: fc.constantFrom('ada-agents', `${MARK} `),
      token: secret,
      secret,
      command: fc.oneof(misplaced, secret),
    },
    { requiredKeys: ['type'] },
  );
  const file = fc.record(
    {
      notify: fc.oneof(misplaced, fc.record({ channels: fc.array(fc.oneof(channel, misplaced)) })),
      password: secret,
      username: fc.constantFrom<unknown>('a:b', { password: MARK }, [{ password: MARK }]),
      credentials: fc.oneof(misplaced, fc.array(fc.oneof(entry, misplaced))),
      instances: fc.oneof(misplaced, fc.array(fc.oneof(entry, misplaced))),
      pasword: secret,
      readOnly: fc.constantFrom<unknown>(true, { password: MARK }),
    },
    { requiredKeys: [] },
  );
  const files = { '/pw': `${MARK}\n${MARK}` };
  const env = { PW: `${MARK}\n`, OPENCODE_SERVER_PASSWORD: MARK, OPENCODE_SERVER_USERNAME: 'a:b', TRANSPORT: 'x' };

  it('with the secret in any field of the config file', () => {
    fc.assert(
      fc.property(file, fc.constantFrom(0o600, 0o644), fc.boolean(), (value, mode, isEnvValid) => {
        expect(messagesOf({ config: value, mode, files, env: isEnvValid ? { PW: MARK } : env })).not.toContain(MARK);
      }),
      { numRuns: 400 },
    );
  });

  it('with JSON that is invalid at any position', () => {
    const text = JSON.stringify({ password: MARK, instances: [{ name: 'a', headers: { 'X-A': MARK } }] });
    fc.assert(
      fc.property(
        fc.nat(text.length),
        fc.nat(3),
        fc.constantFrom('', '"', "'", ',', '}', 'x', '\n', '\\'),
        (start, removed, inserted) => {
          const broken = text.slice(0, start) + inserted + text.slice(start + removed);
          fc.pre(!broken.includes(`{"${MARK}`) && !broken.includes(`"${MARK}":`));
          expect(messagesOf({ config: broken, mode: 0o644 })).not.toContain(MARK);
        },
      ),
      { numRuns: 500 },
    );
  });
});
