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

/** All that is under way has happened. */
const settle = (): unknown => vi.advanceTimersByTime(5_000);

test('an interrupt gives up the relay before opencode starts, and is passed on afterwards', () => {
  terminal.emit('SIGINT');
  expect(signals.giveUp.aborted).toBe(true);
  signals.starting({ interrupted: true });
  settle();
  expect(passed).toEqual([]);
  terminal.emit('SIGINT');
  settle();
  expect(passed).toEqual(['pass SIGINT']);
});

test('an interrupt that has ended ssh and is heard of only after the start is not meant for opencode', () => {
  signals.starting({ interrupted: true });
  terminal.emit('SIGINT');
  settle();
  expect(passed).toEqual([]);
  terminal.emit('SIGINT');
  settle();
  expect(passed).toEqual(['pass SIGINT']);
});

test('it is waited for a moment only, and not where there was none', () => {
  signals.starting({ interrupted: true });
  settle();
  terminal.emit('SIGINT');
  settle();
  expect(passed).toEqual(['pass SIGINT']);
});
