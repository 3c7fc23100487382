import { expect, test } from 'vitest';

import { lineLogger } from '../../src/base/log.ts';
import { EVIL, SAYS, unsafeIn } from '../rig/hostile-words.ts';

test('a log line is one line without terminal control, whatever the message and the fields contain', () => {
  const lines: string[] = [];
  lineLogger('info', (line) => void lines.push(line)).log('warn', `from ${EVIL}`, {
    name: EVIL,
    left: undefined,
    port: 1,
  });
  expect(lines).toHaveLength(1);
  const [line = ''] = lines;
  expect(line).toMatch(/^warn from x .* name="x.*" port=1\n$/);
  expect(unsafeIn(line.slice(0, -1))).toBe(undefined);
  expect(line.startsWith(SAYS)).toBe(false);
});
