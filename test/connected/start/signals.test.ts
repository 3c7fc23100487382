import { EventEmitter } from 'node:events';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { passSignals, type Signals } from '../../../src/connected/start/signals.ts';

let terminal: EventEmitter;
let passed: string[];
let signals: Signals;

beforeEach(() => {
  vi.useFakeTimers();
  terminal = new EventEmitter();
  passed = [];
  signals = passSignals(terminal as unknown as NodeJS.Process, {
    pass: (signal) => void passed.push(`pass ${signal}`),
    stop: (signal) => void passed.push(`stop ${signal}`),
  });
});
afterEach(() => {
  signals.stop();
  vi.useRealTimers();
});

test('an interrupt gives up the relay before opencode starts, and is passed on afterwards', () => {
  terminal.emit('SIGINT');
  expect(signals.giveUp.aborted).toBe(true);
  signals.starting();
  vi.advanceTimersByTime(5_000);
  expect(passed).toEqual([]);
  terminal.emit('SIGINT');
  vi.advanceTimersByTime(5_000);
  expect(passed).toEqual(['pass SIGINT']);
});

test('a signal to end before the start stops opencode as soon as it starts', () => {
  terminal.emit('SIGTERM');
  expect([signals.giveUp.aborted, signals.ended]).toEqual([true, 'SIGTERM']);
  signals.starting();
  expect(passed).toEqual(['stop SIGTERM']);
});
