import { describe, expect, test } from 'vitest';

import { CallRecord, type RecordEntry } from '../../src/operations/call-record.ts';
import { silentLogger } from '../../src/base/log.ts';
import { RotatingFile } from '../../src/base/files/rotating-file.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { deferred } from '../rig/wait.ts';

const ENTRY: RecordEntry = { tool: 'send', instances: ['worker'], outcome: 'ok' };

/** A file whose writes wait for `gate`. */
class SlowFile extends RotatingFile {
  readonly written: string[] = [];
  readonly gate = deferred<void>();

  override async append(text: string): Promise<void> {
    await this.gate.promise;
    this.written.push(text);
  }
}

function openRecord() {
  const file = new SlowFile('/nowhere');
  const record = new CallRecord('/nowhere', leapingClock(), silentLogger, file);
  const lines = (): unknown[] =>
    file.written
      .join('')
      .trimEnd()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
  return { record, file, lines };
}

describe('the record', () => {
  test('adds entries without waiting for the disk, writes later lines together and counts dropped ones', async () => {
    const { record, file, lines } = openRecord();
    for (let index = 0; index < 1_500; index++) record.add({ ...ENTRY, session: `ses_${index}` });
    expect(file.written).toEqual([]);
    file.gate.resolve();
    await record.close();
    expect(file.written).toHaveLength(2);
    expect(lines()[0]).toMatchObject({ session: 'ses_0' });
    expect(lines().at(-1)).toEqual({ time: expect.any(String) as string, dropped: 499 });
    expect(lines()).toHaveLength(1_002);
  });

  test('an entry is one short line, whatever the names hold', async () => {
    const { record, file, lines } = openRecord();
    file.gate.resolve();
    const hostileText = `a\nb\u001b[31m${'x'.repeat(10_000)}`;
    record.add({
      client: { name: hostileText, version: hostileText },
      tool: hostileText,
      instances: Array(200).fill(hostileText),
      session: hostileText,
      outcome: hostileText,
    });
    await record.close();
    expect(lines()).toHaveLength(1);
    expect(file.written.join('').length).toBeLessThan(8_000);
    expect(file.written.join('')).not.toMatch(/\\u001b|\\n/);
  });
});
