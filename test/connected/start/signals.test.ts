import { EventEmitter } from 'node:events';

import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { passSignals, type Signals } from '../../../src/connected/start/signals.ts';

let terminal: EventEmitter;
let calls: string[];
let signals: Signals;

beforeEach(() => {
  vi.useFakeTimers();
  terminal = new EventEmitter();
  calls = [];
  signals = passSignals(terminal as unknown as NodeJS.Process, {
    pass: (signal) => void calls.push(`pass ${signal}`),
    stop: (signal) => void calls.push(`stop ${signal}`),
  });
});
afterEach(() => {
  signals.stop();
  vi.useRealTimers();
});

test('SIGINT gives up the relay before opencode starts, and is passed to opencode afterwards', () => {
  terminal.emit('SIGINT');
  expect(signals.giveUp.aborted).toBe(true);
  signals.starting();
  vi.advanceTimersByTime(5_000);
  expect(calls).toEqual([]);
  terminal.emit('SIGINT');
  vi.advanceTimersByTime(5_000);
  expect(calls).toEqual(['pass SIGINT']);
});

test('SIGTERM before opencode starts stops opencode as soon as it starts', () => {
  terminal.emit('SIGTERM');
  expect([signals.giveUp.aborted, signals.ended]).toEqual([true, 'SIGTERM']);
  signals.starting();
  expect(calls).toEqual(['stop SIGTERM']);
});
