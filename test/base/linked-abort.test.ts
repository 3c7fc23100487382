import { getEventListeners } from 'node:events';

import { expect, test } from 'vitest';

import { LinkedAbort } from '../../src/base/linked-abort.ts';

test('a linked abort follows the first signal that aborts, with the same reason', () => {
  const [one, other] = [new AbortController(), new AbortController()];
  const linked = new LinkedAbort(one.signal, undefined, other.signal);
  expect(linked.signal.aborted).toBe(false);
  other.abort('enough');
  one.abort('too late');
  expect(linked.signal.reason).toBe('enough');
});

test('a linked abort aborts immediately if a signal has already aborted', () => {
  expect(new LinkedAbort(new AbortController().signal, AbortSignal.abort('before')).signal.reason).toBe('before');
});

test('aborting a linked abort does not abort its signals', () => {
  const controller = new AbortController();
  const linked = new LinkedAbort(controller.signal);
  linked.abort('done');
  expect([linked.signal.reason, controller.signal.aborted]).toEqual(['done', false]);
});

test('ending a linked abort aborts it and removes its listeners from the signals', () => {
  const controller = new AbortController();
  const linked = new LinkedAbort(controller.signal);
  expect(getEventListeners(controller.signal, 'abort')).toHaveLength(1);
  linked.end();
  expect(linked.signal.aborted).toBe(true);
  expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
});
